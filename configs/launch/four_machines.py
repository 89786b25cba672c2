"""Four machines with eight GPUs each, whose gradients a reduction server adds up.

Run:   python -m launch.vertex --config=configs/launch/four_machines.py --project=PROJECT --region=us-central1 \
           --image_uri=IMAGE --base_output_dir=gs://BUCKET/run \
           -- --strategy=multi_worker_mirrored --config.train.global_batch_size=1024
Cost:  32 GPUs and the CPU machines of the reduction server, all billed until the last one ends. Try the same
       command with --config.num_machines=2 --config.reduction_server.num_machines=0 and a small machine first.
"""

from ml_collections import ConfigDict

from configs.launch import eight_gpus


def get_config() -> ConfigDict:
    """Four of the machines of eight_gpus.py."""
    config = eight_gpus.get_config()
    config.display_name = "listwise-four-machines"
    config.num_machines = 4
    config.reduction_server.num_machines = 8
    # A cluster that has lost a worker waits for it: the others start again with it.
    config.scheduling.restart_on_worker_restart = True
    return config
