"""The YAML for `ray up` is one that Ray's launcher takes."""

import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.orchestrator.manifests.samples import printed, study_file


def test_rays_launcher_takes_it(capsys, tmp_path) -> None:
    found = yaml.safe_load(printed("ray", capsys, study_file(tmp_path), "--image", "i:1"))
    validate_config(prepare_config(found))
    assert found["cluster_name"] == "my-photos-2" and found["docker"]["image"] == "i:1"
    assert found["provider"]["worker_ips"] == ["NODE1", "NODE2", "NODE3"]
    assert found["docker"]["worker_run_options"] == ["--gpus=all"]


def test_nodes_see_the_folders_of_the_cluster(capsys, tmp_path, monkeypatch) -> None:
    study_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = yaml.safe_load(printed("ray", capsys, "--cluster", "lab"))
    options = found["docker"]["run_options"]
    assert options[:2] == ["--volume=/lab/home:/lab/home", "--volume=/lab/images:/lab/images"]
