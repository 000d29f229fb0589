"""`depthprune clean`, and where `run` leaves its checkpoint."""

from made_records import make_record

CUSTOM = ("--task", "custom", "--text-columns", "text", "--label-column", "kind", "--epochs", 0)


def test_clean_says_what_would_go_and_then_removes_it(command, tmp_path):
    for dropped, score in (((5,), 0.8), ((4,), 0.7)):
        digest = make_record(tmp_path / "runs", dropped, score)
        (tmp_path / "runs" / digest / "model" / "model.safetensors").write_bytes(bytes(2_000_000))

    said = command("clean", "--dry-run")
    assert said.status == 0 and f"2.0 MB  checkpoint: runs/{digest}/model" in said.out
    assert "kept (the best of its model and task)" in said.out and "would free" in said.out
    assert (tmp_path / "runs" / digest / "model").is_dir()

    done = command("clean")
    assert done.status == 0 and "freed" in done.out
    assert not (tmp_path / "runs" / digest / "model").exists()
    assert len(list(tmp_path.glob("runs/*/model"))) == 1 and len(list(tmp_path.glob("runs/*/record.json"))) == 2


def test_a_store_that_is_not_there_is_named(command):
    answer = command("clean", "--store", "nowhere")
    assert answer.status == 2 and "there is no store 'nowhere'" in answer.err


def test_an_output_moves_the_checkpoint_out_of_the_store_and_is_not_trained_again(command, bert, rows_csv, tmp_path):
    arguments = ("run", bert, *CUSTOM, "--dataset", rows_csv, "--layers", "5", "--quiet", "--no-profile")
    first = command(*arguments, "--output", "out")
    assert first.status == 0, first
    assert first.err == "" and "n/a" in first.out
    assert not list(tmp_path.glob("runs/*/model")) and (tmp_path / "out" / "config.json").is_file()

    again = command(*arguments, "--output", "other")
    assert again.out.count("stored before") == 2
    assert (tmp_path / "other" / "model.safetensors").read_bytes() == (
        tmp_path / "out" / "model.safetensors"
    ).read_bytes()
