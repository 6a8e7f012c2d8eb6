"""Resolves the templates in ``infra/`` as CloudFormation does, with the intrinsic functions that they use."""

from __future__ import annotations

import re
from typing import Any

from tests.template import load

# These tables contain the values of references to a resource or its attributes, keyed by resource type. CloudFormation
# generates the names of resources whose types are not in the tables.
ARN = "arn:{AWS::Partition}:"
HERE = "{AWS::Region}:{AWS::AccountId}:"
REFERENCES = {
    "AWS::SQS::Queue": "https://sqs.{AWS::Region}.amazonaws.com/{AWS::AccountId}/{QueueName}",
    "AWS::DynamoDB::Table": "{TableName}",
    "AWS::SNS::Topic": f"{ARN}sns:{HERE}{{TopicName}}",
    "AWS::S3::Bucket": "{BucketName}",
    "AWS::StepFunctions::StateMachine": f"{ARN}states:{HERE}stateMachine:{{StateMachineName}}",
    "AWS::Logs::LogGroup": "{LogGroupName}",
    "AWS::Cognito::UserPool": "{AWS::Region}_{LogicalId}",
    "AWS::RDS::DBCluster": "{DBClusterIdentifier}",
    "AWS::RDS::DBClusterParameterGroup": "{DBClusterParameterGroupName}",
    "AWS::RDS::DBSubnetGroup": "{DBSubnetGroupName}",
    "AWS::SecretsManager::Secret": f"{ARN}secretsmanager:{HERE}secret:{{Name}}-<random>",
}
ATTRIBUTES = {
    ("AWS::SQS::Queue", "Arn"): f"{ARN}sqs:{HERE}{{QueueName}}",
    ("AWS::SQS::Queue", "QueueName"): "{QueueName}",
    ("AWS::SNS::Topic", "TopicName"): "{TopicName}",
    ("AWS::DynamoDB::Table", "Arn"): f"{ARN}dynamodb:{HERE}table/{{TableName}}",
    ("AWS::DynamoDB::Table", "StreamArn"): f"{ARN}dynamodb:{HERE}table/{{TableName}}/stream/<time>",
    ("AWS::S3::Bucket", "Arn"): f"{ARN}s3:::{{BucketName}}",
    ("AWS::Cognito::UserPool", "Arn"): f"{ARN}cognito-idp:{HERE}userpool/{{AWS::Region}}_{{LogicalId}}",
    ("AWS::WAFv2::WebACL", "Arn"): f"{ARN}wafv2:{HERE}regional/webacl/{{Name}}/<id>",
    ("AWS::IAM::Role", "Arn"): f"{ARN}iam::{{AWS::AccountId}}:role/{{LogicalId}}",
    ("AWS::Logs::LogGroup", "Arn"): f"{ARN}logs:{HERE}log-group:{{LogGroupName}}:*",
    ("AWS::RDS::DBCluster", "Endpoint.Address"): "{DBClusterIdentifier}.cluster-<id>.{AWS::Region}.rds.amazonaws.com",
    ("AWS::RDS::DBCluster", "MasterUserSecret.SecretArn"): (
        f"{ARN}secretsmanager:{HERE}secret:rds!cluster-<id>-<random>"
    ),
}
NOTHING = object()


class Template:
    """Holds the resources and outputs of a stack with these parameters, after every value is resolved."""

    def __init__(self, text: str, parameters: dict[str, str], *, region: str, account: str) -> None:
        self._raw = load(text)
        defaults = {name: each.get("Default") for name, each in self._raw["Parameters"].items()}
        assert parameters.keys() <= defaults.keys()
        self._names: dict[str, Any] = {
            "AWS::Region": region,
            "AWS::AccountId": account,
            "AWS::Partition": "aws",
            "AWS::NoValue": NOTHING,
            **{name: self._typed(name, value) for name, value in {**defaults, **parameters}.items()},
        }
        self.resources: dict[str, dict[str, Any]] = {
            name: self._resolve({key: value for key, value in each.items() if key != "Condition"})
            for name, each in self._raw["Resources"].items()
            if "Condition" not in each or self._holds(each["Condition"])
        }
        self.outputs: dict[str, str] = {
            name: self._resolve(each["Value"])
            for name, each in self._raw["Outputs"].items()
            if "Condition" not in each or self._holds(each["Condition"])
        }

    def of_type(self, kind: str) -> dict[str, dict[str, Any]]:
        """Returns the properties of all resources of a type, keyed by logical id."""
        return {name: each["Properties"] for name, each in self.resources.items() if each["Type"] == kind}

    def properties(self, name: str) -> dict[str, Any]:
        properties: dict[str, Any] = self.resources[name]["Properties"]
        return properties

    def _typed(self, name: str, value: Any) -> Any:
        if self._raw["Parameters"][name]["Type"] == "CommaDelimitedList":
            return value.split(",") if value else []
        return value

    def _holds(self, condition: str) -> bool:
        return bool(self._resolve(self._raw["Conditions"][condition]))

    def _resolve(self, value: Any) -> Any:
        if isinstance(value, list):
            return [resolved for each in value if (resolved := self._resolve(each)) is not NOTHING]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            [(function, argument)] = value.items()
            if function in ("Ref", "Condition") or function.startswith("Fn::"):
                return self._call(function, argument)
        resolved = {key: self._resolve(each) for key, each in value.items()}
        return {key: each for key, each in resolved.items() if each is not NOTHING}

    def _call(self, function: str, argument: Any) -> Any:
        match function:
            case "Ref":
                return self._reference(argument)
            case "Fn::GetAtt":
                return self._attribute(*argument)
            case "Fn::Sub":
                text, own = (argument, {}) if isinstance(argument, str) else argument
                return re.sub(r"\$\{([^}]+)\}", lambda match: self._named(match[1], own), text)
            case "Fn::Join":
                return argument[0].join(self._resolve(argument[1]))
            case "Fn::If":
                return self._resolve(argument[1] if self._holds(argument[0]) else argument[2])
            case "Fn::Equals":
                return self._resolve(argument[0]) == self._resolve(argument[1])
            case "Fn::Not":
                return not self._resolve(argument[0])
            case "Fn::And":
                return all(map(self._resolve, argument))
            case "Fn::Or":
                return any(map(self._resolve, argument))
            case "Fn::Select":
                return self._resolve(argument[1])[int(argument[0])]
            case "Condition":
                return self._holds(argument)
        raise TypeError(f"{function}: tests/wiring/template.py does not know this function")

    def _named(self, name: str, own: dict[str, Any]) -> str:
        if name in own:
            return str(self._resolve(own[name]))
        return str(self._attribute(*name.split(".", 1)) if "." in name else self._reference(name))

    def _reference(self, name: str) -> Any:
        if name in self._names:
            return self._names[name]
        return self._filled(REFERENCES.get(self._raw["Resources"][name]["Type"], "{LogicalId}"), name)

    def _attribute(self, name: str, attribute: str) -> str:
        return self._filled(ATTRIBUTES[self._raw["Resources"][name]["Type"], attribute], name)

    def _filled(self, form: str, name: str) -> str:
        known = {**self._names, **self._raw["Resources"][name]["Properties"], "LogicalId": name}
        return re.sub(r"\{([^}]+)\}", lambda match: str(self._resolve(known[match[1]])), form)
