from pathlib import Path

from scripts import doctor as doctor_script
from smpler import command, doctor
from smpler.models import body
from smpler.utils.paths import ROOT


def test_a_whole_checkout_has_all_that_the_demo_needs(capsys):
    assert doctor.main([]) == 0
    printed = capsys.readouterr().out
    assert "MISSING" not in printed, printed
    for line in printed.splitlines():
        assert line.split()[0] in ("ok", "optional") and line.endswith("."), line


def test_advice_names_a_readme_that_exists_and_lists_the_file(capsys):
    doctor.main([])
    for line in capsys.readouterr().out.splitlines():
        if "says where to get it" in line:
            path, readme = line.split(": ")[-1].split(" is not there; ")[:2]
            readme = ROOT / readme.split(" says")[0]
            assert readme.is_file(), line
            assert Path(path).name in readme.read_text(), f"{path} is not in {readme}"


def test_a_missing_body_is_one_sentence_and_exit_code_1(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(body, "OPEN_BODY", tmp_path / "open_body.npz")
    assert doctor.main([]) == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if "MISSING" in line)
    assert "open_body.npz is missing" in line and "git checkout" in line


def test_a_broken_smpl_file_is_told_from_a_missing_one(monkeypatch, tmp_path):
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(b"cut")
    monkeypatch.setattr(body, "SMPL_FILES", (path,))
    findings = list(doctor.check_bodies())
    assert any(status == doctor.MISSING and "was not read" in text for status, text in findings)


def test_an_old_or_absent_package_says_what_to_install():
    assert doctor._check_package("numpy", "999.0")[1].endswith("pip install -U 'numpy>=999.0'.")
    status, sentence = doctor._check_package("no-such-package", "1.0")
    assert status == doctor.MISSING and "pip install 'no-such-package>=1.0'" in sentence


def test_the_script_is_the_subcommand(capsys):
    assert command.main(["doctor"]) == 0
    assert f"in {ROOT}." in capsys.readouterr().out
    assert doctor_script.main is doctor.main
