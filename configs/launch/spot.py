"""One GPU on spot capacity, which is cheaper and can be taken away at any time.

Run:   python -m launch.vertex --config=configs/launch/spot.py --project=PROJECT --region=us-central1 \
           --image_uri=IMAGE --base_output_dir=gs://BUCKET/run \
           -- --strategy=mirrored --config.train.checkpoint_every_steps=500
Cost:  a fraction of single_gpu.py's while it runs, and nothing while it waits. Vertex AI starts a job that
       was pushed aside up to six times again, and the trainer goes on from its last checkpoint: what is lost
       each time is what came after it.
"""

from ml_collections import ConfigDict

from configs.launch import single_gpu


def get_config() -> ConfigDict:
    """The job of single_gpu.py on spot capacity, with time for interruptions."""
    config = single_gpu.get_config()
    config.display_name = "listwise-spot"
    config.scheduling.strategy = "spot"
    config.scheduling.timeout_hours = 6.0
    return config
