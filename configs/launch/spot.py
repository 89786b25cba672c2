"""One GPU with spot capacity. It is cheaper, but Vertex AI can interrupt it at any time.

Run:   python -m launch.vertex --config=configs/launch/spot.py --project=PROJECT --region=us-central1 \
           --image_uri=IMAGE --base_output_dir=gs://BUCKET/run \
           -- --strategy=mirrored --config.train.checkpoint_every_steps=500
Cost:  a fraction of single_gpu.py while it runs, and nothing while it waits. Vertex AI restarts an interrupted job up
       to six times, and the trainer resumes from its last checkpoint. The steps after that checkpoint are repeated.
"""

from ml_collections import ConfigDict

from configs.launch import single_gpu


def get_config() -> ConfigDict:
    """Returns the job of single_gpu.py with spot capacity, and with time for interruptions."""
    config = single_gpu.get_config()
    config.display_name = "listwise-spot"
    config.scheduling.strategy = "spot"
    config.scheduling.timeout_hours = 6.0
    config.scheduling.max_restarts = 6
    return config
