"""Four chips of a TPU v5e on one host.

Run:   python -m launch.vertex --config=configs/launch/tpu_v5e.py --project=PROJECT --region=us-west1 \
           --image_uri=IMAGE --base_output_dir=gs://BUCKET/run \
           -- --strategy=tpu --config.train.global_batch_size=128
Cost:  four chips while the machine runs. The project needs quota for them in a region that has them. Build IMAGE from
       Dockerfile.tpu. `python -m trainer.doctor --strategy=tpu` finds most errors before, without costs.
"""

from ml_collections import ConfigDict

from configs.launch import default


def get_config() -> ConfigDict:
    """Returns the default job on a 2x2 slice, for at most two hours."""
    config = default.get_config()
    config.display_name = "listwise-tpu-v5e"
    config.machine_type = "ct5lp-hightpu-4t"
    config.tpu_topology = "2x2"
    config.scheduling.timeout_hours = 2.0
    return config
