"""The steps of a deploy. A test kills a deploy after each of these calls, and a later deploy must finish the stage."""

# The operation, and a part of its path or body. The first matching call counts, in this order.
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
