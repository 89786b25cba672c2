"""Four machines with eight GPUs each, and a reduction server that adds up their gradients.

Run:   python -m launch.vertex --config=configs/launch/four_machines.py --project=PROJECT --region=us-central1 \
           --image_uri=IMAGE --base_output_dir=gs://BUCKET/run \
           -- --strategy=multi_worker_mirrored --config.train.global_batch_size=1024
Cost:  32 GPUs and the CPU machines of the reduction server, all billed until the last one ends. First try the command
       with a small machine, --config.num_machines=2 and --config.reduction_server.num_machines=0.
"""

from ml_collections import ConfigDict

from configs.launch import eight_gpus


def get_config() -> ConfigDict:
    """Returns the job of eight_gpus.py on four machines."""
    config = eight_gpus.get_config()
    config.display_name = "listwise-four-machines"
    config.num_machines = 4
    config.reduction_server.num_machines = 8
    return config
