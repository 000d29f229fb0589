"""`depthprune export`: what it prints, and one line for what is wrong."""

from tiny_models import tiny_checkpoint


def test_a_checkpoint_is_exported_and_the_proof_is_told(command, tmp_path):
    tiny_checkpoint(tmp_path / "small", num_layers=2)

    options = ("--format", "sentence-transformers", "--option", "pooling=cls")
    answer = command("export", "small", *options, "--output", "out")

    assert answer.status == 0, answer
    assert answer.out.startswith("sentence-transformers: out (proved: sentence-transformers makes the vectors of ")
    assert (tmp_path / "out" / "1_Pooling" / "config.json").is_file()


def test_what_cannot_be_exported_is_told_in_one_line(command, tmp_path):
    (tmp_path / "small").mkdir()
    for arguments, message in (
        (("small", "--format", "onxx"), "no exporter is named 'onxx'"),
        (("small", "--format", "sentence-transformers", "--option", "pooling"), "--option pooling is not NAME=VALUE"),
        (("small", "--format", "sentence-transformers"), "'small' has no config.json"),
        (("nowhere", "--format", "sentence-transformers"), "there is no folder 'nowhere'"),
    ):
        answer = command("export", *arguments, "--output", "out")
        assert answer.status == 2 and message in answer.err and answer.err.count("\n") == 1, answer
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_the_formats_are_listed(command):
    answer = command("list")

    assert "formats (depthprune export --format):" in answer.out
    assert "Needs depthprune[sentence-transformers]." in answer.out
