"""Lists the API calls after which a test kills a deploy. The next deploy must then complete the stage."""

# Each row contains an operation and a string from its path or body. The test kills the deploy after the first call that
# matches the row.
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
    # The state machines get the address of the new API.
    ("cloudformation:ExecuteChangeSet", "cafe-cut-resources"),
    ("lambda:PUT", "/event-source-mappings/"),
    ("sns:SetSubscriptionAttributes", ""),
    ("lambda:Invoke", "cafe-cut-migrate"),
    ("cognito-idp:AdminCreateUser", ""),
    ("s3:PutObject", "releases/"),
)
