"""Call the command line in this process, as tests do."""

from typer.testing import CliRunner

from cube_denoise.cli import app


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def done(*arguments):
    result = call(*arguments)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result


def mistake(*arguments):
    """Sentence of a command that must refuse."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output + repr(result.exception)
    lines = [n for n in result.stderr.splitlines() if n.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in result.output, result.output
    return lines[0]
