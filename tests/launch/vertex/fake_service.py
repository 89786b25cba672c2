"""Vertex AI's services of jobs, models and endpoints on loopback, to which the official client library talks."""

import concurrent.futures
import importlib


class FakeVertexAI:
    """Keeps its requests, and answers or refuses them.

    Attributes:
      requests: (method, request) in the order in which they came.
      answers: The answers of methods that read, by the name of the method.
      refusals: What is refused: (code, message) by the name of a method, or by "" for all methods.
      failures: Long operations that are accepted and then fail: (number of a code, message) by the name of the method.
      unfinished: Long operations that never end, by the name of the method.
    """

    NUMBER = "9876543210"
    PLACE = "projects/123/locations/us-central1"
    ENDPOINT = f"{PLACE}/endpoints/{NUMBER}"
    MODEL = f"{PLACE}/models/{NUMBER}"

    def __init__(self, aiplatform_v1):
        import grpc
        from google.longrunning import operations_pb2

        self._library = aiplatform_v1
        self._operation_type = operations_pb2.Operation
        self.requests = []
        self.answers = {}
        self.refusals = {}
        self.failures = {}
        self.unfinished = set()
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        for service, methods in {
            "JobService": {
                f"{verb}{job}": "" if verb == "Cancel" else job
                for verb in ("Create", "Get", "Cancel")
                for job in ("CustomJob", "HyperparameterTuningJob", "BatchPredictionJob")
            },
            "ModelService": {"UploadModel": "Operation"},
            "EndpointService": {
                "CreateEndpoint": "Operation",
                "GetEndpoint": "Endpoint",
                "DeployModel": "Operation",
                "UndeployModel": "Operation",
            },
        }.items():
            handlers = {
                method: grpc.unary_unary_rpc_method_handler(
                    self._handler(method, answer),
                    request_deserializer=getattr(aiplatform_v1, f"{method}Request").deserialize,
                    response_serializer=self._serializer(answer),
                )
                for method, answer in methods.items()
            }
            self._server.add_generic_rpc_handlers(
                [grpc.method_handlers_generic_handler(f"google.cloud.aiplatform.v1.{service}", handlers)]
            )
        self._server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    "google.longrunning.Operations",
                    {
                        "GetOperation": grpc.unary_unary_rpc_method_handler(
                            lambda request, _: self._operation_type(name=request.name),
                            request_deserializer=operations_pb2.GetOperationRequest.FromString,
                            response_serializer=self._operation_type.SerializeToString,
                        )
                    },
                )
            ]
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def methods(self) -> list[str]:
        """The names of the methods that were called."""
        return [method for method, _ in self.requests]

    def stop(self):
        self._server.stop(None).wait()

    def _serializer(self, answer):
        if not answer:
            return lambda _: b""
        if answer == "Operation":
            return self._operation_type.SerializeToString
        return getattr(self._library, answer).serialize

    def _handler(self, method, answer):
        def handle(request, context):
            self.requests.append((method, request))
            refusal = self.refusals.get(method) or self.refusals.get("")
            if refusal:
                context.abort(*refusal)
            if answer == "Operation":
                return self._operation(method)
            if method.startswith("Create"):
                kind = answer[0].lower() + answer[1:] + "s"
                return getattr(self._library, answer)(name=f"{self.PLACE}/{kind}/{self.NUMBER}")
            return self.answers.get(method)

        return handle

    def _operation(self, method):
        operation = self._operation_type(name=f"{self.ENDPOINT}/operations/1")
        if method in self.unfinished:
            return operation
        operation.done = True
        if method in self.failures:
            operation.error.code, operation.error.message = self.failures[method]
            return operation
        library = self._library
        result = {
            "UploadModel": lambda: library.UploadModelResponse(model=self.MODEL, model_version_id="2"),
            "CreateEndpoint": lambda: library.Endpoint(name=self.ENDPOINT),
            "DeployModel": lambda: library.DeployModelResponse(deployed_model={"id": "77"}),
            "UndeployModel": lambda: library.UndeployModelResponse(),
        }[method]()
        operation.response.Pack(type(result).pb(result))
        return operation


def build_client(aiplatform_v1, service: str, port: int):
    """Builds a client of the service "Job", "Model" or "Endpoint" on loopback."""
    import grpc

    name = f"{service}Service"
    transports = importlib.import_module(f"google.cloud.aiplatform_v1.services.{service.lower()}_service.transports")
    # A proxy cannot reach loopback.
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)])
    transport = getattr(transports, f"{name}GrpcTransport")(channel=channel)
    return getattr(aiplatform_v1, f"{name}Client")(transport=transport)
