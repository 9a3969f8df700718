"""A gRPC client that is not ours, against a worker: it learns the service from the worker itself, by reflection.

usage: grpc_client.py HOST:PORT NODE CA CERTIFICATE KEY

With the CA alone it may ask for health and for the descriptors, and is refused UNAUTHENTICATED when it calls the worker's
own service. With a role's certificate it is answered. Whoever trusts another CA does not get that far.
"""

import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

WAIT_S = 10
SERVICE = "worldline.server.v1.Worker"
NOT_OWNER = "PERFORM_STATUS_NOT_OWNER"
NOBODYS_CHARACTER = 999_999


def main(address: str, node: str, ca: str, certificate: str, key: str) -> None:
    def channel(*identity: bytes) -> grpc.Channel:
        # The name in a role's certificate says who it is, not where: node 7 is n7.worldline wherever it listens.
        options = [("grpc.ssl_target_name_override", f"n{node}.worldline")]
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(read(ca), *identity), options)

    with channel() as stranger:
        health = health_pb2_grpc.HealthStub(stranger).Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S)
        expect("health for anybody", health_pb2.HealthCheckResponse.ServingStatus.Name(health.status), "SERVING")

        descriptors = ProtoReflectionDescriptorDatabase(stranger)
        expect("the service by reflection", SERVICE in descriptors.get_services(), True)
        service = descriptor_pool.DescriptorPool(descriptors).FindServiceByName(SERVICE)
        expect("its methods", sorted(service.methods_by_name), ["ApplyEffect", "Attach", "Perform"])

        expect("a call without a certificate", refusal(perform, stranger, service), grpc.StatusCode.UNAUTHENTICATED)

    with channel(read(key), read(certificate)) as role:
        reply = perform(role, service)
        status = reply.DESCRIPTOR.fields_by_name["status"].enum_type.values_by_number[reply.status].name
        expect("a call with a role's certificate", status, NOT_OWNER)


def perform(channel: grpc.Channel, service):
    """Calls Perform for a character that nobody owns, knowing nothing but the descriptors."""
    method = service.methods_by_name["Perform"]
    request = message_factory.GetMessageClass(method.input_type)(character=NOBODYS_CHARACTER, generation=1, number=1)
    reply = message_factory.GetMessageClass(method.output_type)
    call = channel.unary_unary(
        f"/{SERVICE}/{method.name}", request_serializer=type(request).SerializeToString, response_deserializer=reply.FromString
    )
    return call(request, timeout=WAIT_S)


def refusal(call, *arguments):
    try:
        return call(*arguments)
    except grpc.RpcError as error:
        return error.code()


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def expect(what: str, found, wanted) -> None:
    if found != wanted:
        sys.exit(f"{what}: found {found}, expected {wanted}")
    print(f"  {what}: {found if isinstance(found, str) else getattr(found, 'name', 'yes')}")


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
