"""Mistakes in a command: each one is refused with one paragraph."""

import pytest

from tests.launch.vertex.commands import refused, with_destination

TWO_MACHINES = ["--config.num_machines=2"]
MWMS = ["--strategy=multi_worker_mirrored"]
GPU = ["--config=configs/launch/single_gpu.py"]
TPU = ["--config=configs/launch/tpu_v5e.py"]
FOUR = ["--config=configs/launch/four_machines.py"]
STUDY = ["tune", "--config=configs/launch/tune.py"]
ACCOUNT = "--config.service_account=me@my-project.iam.gserviceaccount.com"
TENSORBOARD = "--config.tensorboard=projects/p/locations/{}/tensorboards/1"

# (the launcher's flags, the trainer's, what the paragraph has to say)
MISTAKES = [
    # Where.
    (["--project="], [], "--project is missing"),
    (["--project=My_Project"], [], "--project='My_Project' cannot be used"),
    (["--region=us"], [], "--region='us' cannot be used: it has to be a region of Google Cloud"),
    (["--region=global"], [], "--region='global'"),
    (["--image_uri=My Image"], [], "--image_uri='My Image' cannot be used"),
    (["--image_uri=trainer"], [], "an image in a registry"),
    (["--base_output_dir=/tmp/run"], [], "it has to be gs://BUCKET/FOLDER"),
    (["--base_output_dir=gs://My_Bucket/run"], [], "--base_output_dir='gs://My_Bucket/run'"),
    (["--base_output_dir=gs://bucket//run"], [], "empty parts"),
    (["--base_output_dir=gs://bucket/run[1]"], [], "the characters * ? ["),
    # The command line itself.
    (
        ["launch"],
        [],
        "'launch' is not a command. Use one of submit, tune, status, logs, cancel, upload, deploy, undeploy, predict.",
    ),
    (["stray"], [], "'stray' is not a command"),
    (["--nope=3"], [], "nope"),
    (["--config.nope=3"], [], "config.nope is not a field. configs/launch/default.py lists"),
    (["--config.num_machine=3"], [], "config.num_machine is not a field; did you mean num_machines?"),
    (["--config.num_machines=few"], [], "--config.num_machines=few"),
    (["--config=missing.py"], [], "--config=missing.py cannot be loaded: No such file"),
    (["--config=configs/tutorial.py"], [], "config.candidates is not a field"),
    (
        [],
        ["--config.train.num_epoch=3"],
        "config.train.num_epoch is not a field; did you mean num_epochs? configs/default.py lists",
    ),
    ([], ["--config.train.num_epochs=x"], "which follow --: flag --config.train.num_epochs=x"),
    ([], ["--config.train.num_epochs=-1"], "which follow --: config.train.num_epochs=-1 cannot be used"),
    ([], ["--config.optimizer.weight_decay=0.0"], "adamw is adam with weight decay"),
    ([], ["--config.eval.metrics=('auc',)"], "'auc', which is not a metric"),
    ([], ["--config=missing.py"], "In the trainer's flags, which follow --: --config=missing.py"),
    ([], ["--config=configs/launch/spot.py"], "config.accelerator_count is not a field. configs/default.py"),
    # Names.
    (["--config.display_name="], [], "config.display_name='' cannot be used: it has to be from 1 to 128"),
    (["--config.display_name=" + 129 * "x"], [], "from 1 to 128"),
    (["--config.labels=('Team=a',)"], [], "config.labels='Team=a' cannot be used"),
    (["--config.labels=('team=A b',)"], [], "config.labels='team=A b'"),
    (["--config.labels=('team',)"], [], "config.labels='team' cannot be used: it has to be NAME=VALUE"),
    (["--config.labels=('a=1', 'a=2')"], [], "config.labels has a name twice"),
    ([f"--config.labels={tuple(f'l{n}=x' for n in range(65))}"], [], "at most 64 strings KEY=VALUE"),
    (["--config.environment=('1A=b',)"], [], "config.environment='1A' cannot be used"),
    (["--config.environment=('TF_CONFIG={}',)"], [], "sets TF_CONFIG, but Vertex AI sets it"),
    (["--config.environment=('AIP_MODEL_DIR=gs://b',)"], [], "sets AIP_MODEL_DIR, but Vertex AI sets it"),
    (["--config.service_account=me@gmail.com"], [], "config.service_account='me@gmail.com' cannot be used"),
    (["--config.network=default"], [], "projects/NUMBER/global/networks/NAME"),
    (["--config.network=projects/name/global/networks/n"], [], "with the project's number"),
    ([TENSORBOARD.format("us-east1"), ACCOUNT], [], "in the region of the job, us-central1"),
    ([TENSORBOARD.format("us-central1")], [], "needs config.service_account"),
    # Machines and accelerators.
    (["--config.machine_type="], [], "config.machine_type='' cannot be used"),
    (["--config.machine_type=ct6e-standard-4t"], ["--strategy=mirrored"], "'ct6e-standard-4t' is a TPU"),
    (["--config.accelerator_count=1"], [], "contradict each other"),
    (["--config.tpu_topology=large"], [], "config.tpu_topology='large' cannot be used"),
    ([*GPU, "--config.accelerator_count=3"], [], "config.accelerator_count=3 cannot be used"),
    ([*GPU, "--config.accelerator_count=0"], [], "config.accelerator_count=0 contradict each other"),
    ([*GPU, "--config.machine_type=n1-standard-32"], [], "has to be one of 2, 4"),
    ([*GPU, "--config.machine_type=e2-standard-8"], [], "config.accelerator_type='NVIDIA_TESLA_T4' cannot be used"),
    ([*GPU, "--config.accelerator_type=NVIDIA_L4"], [], "config.accelerator_type='NVIDIA_L4' cannot be used"),
    ([*GPU, "--config.machine_type=g2-standard-24"], [], "it has to be 'NVIDIA_L4'"),
    ([*FOUR, "--config.accelerator_count=4"], MWMS, "for a2-highgpu-8g it has to be 8"),
    (["--config.tpu_topology=2x2"], [], "config.tpu_topology='2x2' is only for ct5lp-hightpu-1t"),
    ([*TPU, "--config.tpu_topology=3x3"], ["--strategy=tpu"], "one of '2x2', '2x4', '4x4'"),
    ([*TPU, "--config.tpu_topology="], ["--strategy=tpu"], "config.tpu_topology='' cannot be used"),
    ([*TPU, "--config.accelerator_type=TPU_V3"], ["--strategy=tpu"], "config.accelerator_type='TPU_V3'"),
    (["--config.machine_type=cloud-tpu"], ["--strategy=tpu"], "one of 'TPU_V2', 'TPU_V3'"),
    (
        ["--config.machine_type=cloud-tpu", "--config.accelerator_type=TPU_V2", "--config.accelerator_count=64"],
        ["--strategy=tpu"],
        "for TPU_V2 it has to be one of 8, 32, 128",
    ),
    ([*TPU, *TWO_MACHINES], ["--strategy=tpu"], "1 for a TPU"),
    (["--config.num_machines=0"], [], "config.num_machines=0 cannot be used: it has to be at least 1"),
    (["--config.boot_disk_type=floppy"], [], "config.boot_disk_type='floppy'"),
    (["--config.boot_disk_size_gb=99"], [], "config.boot_disk_size_gb=99 cannot be used: it has to be from 100"),
    (["--config.reduction_server.num_machines=-1"], [], "at least 0"),
    ([*GPU, "--config.reduction_server.num_machines=1"], [], "unless config.num_machines is above 1"),
    ([*TWO_MACHINES, "--config.reduction_server.num_machines=1"], MWMS, "and the machines have GPUs"),
    ([*FOUR, "--config.reduction_server.machine_type=g2-standard-4"], MWMS, "reduction_server.machine_type='g2-"),
    ([*FOUR, "--config.reduction_server.image_uri=x"], MWMS, "config.reduction_server.image_uri='x'"),
    # Scheduling.
    (["--config.scheduling.strategy=cheap"], [], "it has to be standard, spot or flex_start"),
    (["--config.scheduling.max_restarts=2"], [], "3, or 0 for no restart: Vertex AI takes no number"),
    (["--config.scheduling.max_restarts=-1"], [], "config.scheduling.max_restarts=-1"),
    (
        ["--config.scheduling.strategy=spot"],
        [],
        "config.scheduling.max_restarts=3 cannot be used: it has to be 6, or 0",
    ),
    (["--config.scheduling.timeout_hours=0"], [], "config.scheduling.timeout_hours=0.0 cannot be used"),
    (["--config.scheduling.timeout_hours=inf"], [], "a finite number"),
    (["--config.scheduling.max_wait_hours=-1"], [], "config.scheduling.max_wait_hours=-1.0"),
    ([*GPU, "--config.scheduling.strategy=flex_start"], [], "flex_start is only for GPUs from the L4 on"),
    ([*TPU, "--config.scheduling.strategy=flex_start"], ["--strategy=tpu"], "flex_start is only for GPUs"),
    ([*FOUR, "--config.scheduling.strategy=flex_start"], MWMS, "flex_start needs machines of one kind"),
    (
        [
            "--config=configs/launch/eight_gpus.py",
            "--config.scheduling.strategy=flex_start",
            "--config.scheduling.timeout_hours=169",
        ],
        ["--strategy=mirrored"],
        "at most 168, which is 7 days",
    ),
    (
        [
            "--config.machine_type=a3-highgpu-1g",
            "--config.accelerator_type=NVIDIA_H100_80GB",
            "--config.accelerator_count=1",
        ],
        [],
        "spot or flex_start for a3-highgpu-1g",
    ),
    (
        [*TPU, "--config.tpu_topology=4x4", "--config.scheduling.strategy=spot"],
        ["--strategy=tpu"],
        "standard for a TPU slice with several hosts",
    ),
    # The trainer's flags against the machines.
    ([], ["--workdir=runs/mine"], "--workdir=runs/mine cannot be used on Vertex AI"),
    ([], ["--strategy=fast"], "flag --strategy=fast: value should be one of <default|"),
    ([], ["--strategy", "tpu"], "--strategy=tpu needs a TPU"),
    (TPU, ["--strategy=mirrored"], "is a TPU"),
    (TPU, [], "--strategy='default' cannot be used: it has to be tpu"),
    (GPU, MWMS, "--strategy=multi_worker_mirrored needs several machines"),
    (TWO_MACHINES, ["--strategy=mirrored"], "--strategy=mirrored uses one machine, but config.num_machines=2"),
    (TWO_MACHINES, [], "--strategy=default uses one machine"),
    ([*GPU, "--config.accelerator_count=2"], [], "--strategy=default uses one GPU"),
    (FOUR, [*MWMS, "--config.train.global_batch_size=1000"], "among the 32 accelerators"),
    (TPU, ["--strategy=tpu", "--config.train.global_batch_size=30"], "among the 4 accelerators"),
    # Studies.
    (["--config=configs/launch/tune.py"], [], "Use `python -m launch.vertex tune`"),
    (["tune"], [], "config.study.parameters is empty"),
    (
        [*STUDY, "--config.study.metric=map"],
        [],
        "a validation metric of the trainer: loss, ndcg, ndcg@10, mrr, precision@5, catalogue/ndcg",
    ),
    (
        STUDY,
        ["--config.eval.metrics=('mrr',)", "--config.eval.best_metric=mrr"],
        "config.study.metric='catalogue/ndcg@10'",
    ),
    (STUDY, ["--config.split.method=none"], "measured on the validation split, but the trainer's config has none"),
    (
        STUDY,
        ["--config.split.validation_fraction=0"],
        "measured on the validation split, but the trainer's config has none",
    ),
    ([*STUDY, "--config.study.goal=up"], [], "config.study.goal='up'"),
    ([*STUDY, "--config.study.algorithm=luck"], [], "config.study.algorithm='luck'"),
    (
        [*STUDY, "--config.study.algorithm=grid"],
        [],
        "a range of whole numbers, or values, with config.study.algorithm='grid'",
    ),
    ([*STUDY, "--config.study.max_trials=0"], [], "config.study.max_trials=0"),
    ([*STUDY, "--config.study.parallel_trials=17"], [], "from 1 to config.study.max_trials=16"),
    ([*STUDY, "--config.study.max_failed_trials=-1"], [], "config.study.max_failed_trials=-1"),
]


@pytest.mark.parametrize(
    ("own", "trainer_flags", "says"), MISTAKES, ids=[" ".join([*m[0], "--", *m[1]])[:90] for m in MISTAKES]
)
def test_a_mistake_is_one_paragraph_that_names_it(own, trainer_flags, says, capsys, no_network):
    assert says in refused(capsys, with_destination(own, trainer_flags))
