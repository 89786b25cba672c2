"""One machine with eight GPUs.

Run:   python -m launch.vertex --config=configs/launch/eight_gpus.py --project=PROJECT --region=us-central1 \
           --image_uri=IMAGE --base_output_dir=gs://BUCKET/run \
           -- --strategy=mirrored --config.train.global_batch_size=256
Cost:  eight A100s are billed while the machine runs, used or not. Try single_gpu.py first. A new project has no quota
       for them; request it for the region.
"""

from ml_collections import ConfigDict

from configs.launch import default


def get_config() -> ConfigDict:
    """Returns the default job on eight A100s."""
    config = default.get_config()
    config.display_name = "listwise-eight-gpus"
    config.machine_type = "a2-highgpu-8g"
    config.accelerator_type = "NVIDIA_TESLA_A100"
    config.accelerator_count = 8
    return config
