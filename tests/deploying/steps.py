"""The steps of a deploy: after each of these calls a test kills it, and a second deploy must finish the stage."""

# The operation and a part of its path or body. The first call of each kind counts, in this order.
STEPS = (
    ("cloudformation:ExecuteChangeSet", "cafe-cut-deploys"),
    ("s3:PutObject", "stage.json"),
    ("cloudformation:ExecuteChangeSet", "cafe-cut-resources"),
    ("lambda:POST", "/functions"),
    ("lambda:POST", "/event-source-mappings"),
    ("s3:PutBucket", "notification"),
    ("sns:Subscribe", ""),
    ("apigateway:POST", "/restapis?"),
    ("apigateway:POST", "/deployments"),
    ("s3:PutObject", "packages/"),
    ("lambda:PUT", "/event-source-mappings/"),
    ("sns:SetSubscriptionAttributes", ""),
    ("lambda:Invoke", "cafe-cut-migrate"),
    ("cognito-idp:AdminCreateUser", ""),
    ("s3:PutObject", "releases/"),
)
