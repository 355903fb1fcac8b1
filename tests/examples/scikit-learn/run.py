"""Train with SageMaker's SDK, deploy the model, ask it, transform a file: python run.py BUCKET ROLE_ARN"""

import sys

import sagemaker
from sagemaker.deserializers import BytesDeserializer
from sagemaker.serializers import CSVSerializer
from sagemaker.sklearn import SKLearn
from sklearn.datasets import load_iris

bucket, role = sys.argv[1:]
session = sagemaker.Session(default_bucket=bucket)
iris = load_iris()
table = [",".join(map(str, (label, *row))) for label, row in zip(iris.target, iris.data, strict=True)]
rows = "\n".join(line.partition(",")[2] for line in table[::50])
data = session.upload_string_as_file_body("\n".join(table), bucket, "iris/train/train.csv").rpartition("/")[0]
session.upload_string_as_file_body(rows, bucket, "iris/rows/rows.csv")

machine = {"instance_type": "ml.m5.large", "instance_count": 1}
place = {"source_dir": "code", "role": role, "sagemaker_session": session}
given = {"framework_version": "1.4-2", "hyperparameters": {"trees": 20}}
estimator = SKLearn(entry_point="train.py", output_path=f"s3://{bucket}/iris", **place, **machine, **given)
estimator.fit({"train": data})
model = estimator.create_model(entry_point="inference.py", source_dir="code")
predictor = model.deploy(1, "ml.m5.large", serializer=CSVSerializer(), deserializer=BytesDeserializer())
print("endpoint:", predictor.predict(rows).decode().split())
predictor.delete_endpoint()
transformer = model.transformer(1, "ml.m5.large", output_path=f"s3://{bucket}/iris/labels")
transformer.transform(f"s3://{bucket}/iris/rows", content_type="text/csv")
print("transform:", session.read_s3_file(bucket, "iris/labels/rows.csv.out").split())
