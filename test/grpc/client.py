"""Every method of the inference service, called with Python's grpcio as tritonclient.grpc calls it.

Arguments: the server's address, and a file with the descriptor of the service. Prints one JSON object.
"""
import json
import struct
import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

address, descriptor_path = sys.argv[1:]
file = descriptor_pb2.FileDescriptorProto()
with open(descriptor_path, "rb") as stream:
    file.ParseFromString(stream.read())
pool = descriptor_pool.DescriptorPool()
pool.Add(file)
service = pool.FindServiceByName("inference.GRPCInferenceService")
factory = message_factory.MessageFactory(pool)


def message_class(descriptor):
    get = getattr(message_factory, "GetMessageClass", None)
    return get(descriptor) if get else factory.GetPrototype(descriptor)


channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])


def method_of(name):
    method = service.methods_by_name[name]
    return f"/{service.full_name}/{name}", message_class(method.input_type), message_class(method.output_type)


def call(name, request_fields=None, fill=None, **options):
    path, request_class, response_class = method_of(name)
    request = request_class(**(request_fields or {}))
    if fill:
        fill(request)
    stub = channel.unary_unary(path, request_class.SerializeToString, response_class.FromString)
    return stub(request, **options)


def infer_request(values, **fields):
    _, request_class, _ = method_of("ModelInfer")
    request = request_class(model_name="add", **fields)
    tensor = request.inputs.add()
    tensor.name, tensor.datatype = "x", "FP32"
    tensor.shape.extend([1, 2])
    request.raw_input_contents.append(struct.pack("<2f", *values))
    # What tritonclient sets beside the tensors.
    request.parameters["priority"].uint64_param = 1
    request.parameters["timeout"].int64_param = 20_000_000
    output = request.outputs.add()
    output.name = "y"
    return request


def values_of(response):
    return list(struct.unpack("<2f", response.raw_output_contents[0]))


def failed(name, *args, **kwargs):
    try:
        call(name, *args, **kwargs)
    except grpc.RpcError as error:
        return {
            "code": error.code().name,
            "details": error.details(),
            "error": dict(error.trailing_metadata()).get("x-error-code"),
        }
    return None


path, request_class, response_class = method_of("ModelInfer")
infer = channel.unary_unary(path, request_class.SerializeToString, response_class.FromString)
response, seen = infer.with_call(
    infer_request([1.0, 2.0], id="one"), metadata=(("x-request-id", "from-python"),), compression=grpc.Compression.Gzip
)
result = {
    "live": call("ServerLive").live,
    "ready": call("ServerReady").ready,
    "name": call("ServerMetadata").name,
    "modelReady": call("ModelReady", {"name": "add", "version": "1"}).ready,
    "inputs": [[one.name, one.datatype, list(one.shape)] for one in call("ModelMetadata", {"name": "add"}).inputs],
    "maxBatchSize": call("ModelConfig", {"name": "add"}).config.max_batch_size,
    "infer": {"id": response.id, "version": response.model_version, "values": values_of(response)},
    "requestId": dict(seen.initial_metadata()).get("x-request-id"),
    "index": [[one.name, one.state] for one in call("RepositoryIndex").models],
    "regions": len(call("SystemSharedMemoryStatus").regions),
    "cuda": len(call("CudaSharedMemoryStatus").regions),
    "trace": list(call("TraceSetting").settings["trace_level"].value),
    "log": call("LogSettings").settings["log_info"].bool_param,
}
call("RepositoryModelUnload", {"model_name": "add"})
result["unloaded"] = failed("ModelMetadata", {"name": "add"})
call("RepositoryModelLoad", {"model_name": "add"})
call("CudaSharedMemoryUnregister")
call("SystemSharedMemoryUnregister")
result["cudaRegister"] = failed("CudaSharedMemoryRegister", {"name": "a", "byte_size": 8})

path, request_class, response_class = method_of("ModelStreamInfer")
stream = channel.stream_stream(path, request_class.SerializeToString, response_class.FromString)
answers = list(stream(iter([infer_request([i, i], id=str(i)) for i in range(20)])))
result["stream"] = [[one.infer_response.id, values_of(one.infer_response)] for one in answers]
statistics = call("ModelStatistics", {"name": "add", "version": "1"}).model_stats[0]
result["success"] = statistics.inference_stats.success.count
print(json.dumps(result))
