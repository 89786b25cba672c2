"""Who can connect to the workers of a job that trains on this machine."""

import pytest

from tests.launch import jobs

pytestmark = pytest.mark.reliability


@pytest.mark.promise(14, "the network of this machine", "jobs listen on none of its ports")
def test_tensorflow_listens_on_no_port_of_this_machine(tmp_path, ratings_csv):
    if jobs.network_flags():
        pytest.skip("this machine allows no network namespaces")
    before = jobs.listening_ports()
    with jobs.job(tmp_path / "run", ratings_csv) as job:
        job.wait_for_step(50)
        workers = job.workers()
        # In their own network, the workers do listen.
        assert all(jobs.listening_ports(worker) - before for worker in workers)
        assert not jobs.listening_ports() & {port for worker in workers for port in jobs.listening_ports(worker)}
