"""The controller: a Hansa server for its address, over TLS."""

import os

from hansa.compat.metisfl import Controller, ControllerConfig, ModelStoreConfig, ServerParams

controller_params = ServerParams(hostname="localhost", port=int(os.environ.get("PORT", "50051")))

controller = Controller(
    server_params=controller_params,
    controller_config=ControllerConfig(
        aggregation_rule="FedAvg",
        scheduler="Synchronous",
        scaling_factor="NumTrainingExamples",
    ),
    model_store_config=ModelStoreConfig(model_store="InMemory", lineage_length=0),
)

if __name__ == "__main__":
    controller.start()
