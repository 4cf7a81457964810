"""The command that brings a run to the Hugging Face Hub."""

from __future__ import annotations

from typing import Annotated

import typer

from vivavoce.cli.shared import RunPath
from vivavoce.errors import DataError


def publish(
    run_path: RunPath,
    to: Annotated[str, typer.Option(help="USER/NAME on the Hub; the data set becomes USER/NAME-data.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write what would be uploaded, and send nothing.")] = False,
    arm: Annotated[str, typer.Option(help="Which student; default: the one that the run is about.")] = "",
    seed: Annotated[int | None, typer.Option(help="Which training seed; default: the first.")] = None,
    base: Annotated[str, typer.Option(help="OWNER/NAME of the model that the student started from.")] = "",
    license_: Annotated[str, typer.Option("--license", help="Licence by the Hub's name for it: apache-2.0, …")] = "",
    terms_checked: Annotated[
        bool, typer.Option("--terms-checked", help="You have checked that teachers, task and base allow it.")
    ] = False,
    model: Annotated[bool, typer.Option(help="Publish the student.")] = True,
    data: Annotated[bool, typer.Option(help="Publish what it learnt from, and the answers to the test.")] = True,
    public: Annotated[bool, typer.Option("--public", help="Make it public; default: private.")] = False,
    allow: Annotated[
        list[str], typer.Option(help="Publish although the files hold such patterns: email, phone, iban, card, path.")
    ] = [],
) -> None:
    """Publish a run's student and data on the Hugging Face Hub, each with a card made from the run.

    Weights go as safetensors only. Nothing is sent that holds a key, or what looks like personal data.
    """
    from vivavoce.progress import say
    from vivavoce.publish.cards import questions
    from vivavoce.publish.checks import PERSONAL, hits_in
    from vivavoce.publish.facts import PublishChoices, facts_of
    from vivavoce.publish.preparing import prepare
    from vivavoce.publish.upload import upload

    if unknown := [kind for kind in allow if kind not in PERSONAL]:
        do = f"allow some of {', '.join(PERSONAL)}; keys are never published"
        raise DataError(f"`{unknown[0]}` cannot be allowed", "--allow", do)
    wanted = PublishChoices(to, arm, seed, base, license_, terms_checked, model, data)
    shipments = prepare(run_path, wanted)
    findings = [one for shipment in shipments for one in hits_in(shipment.folder) if one.kind not in allow]
    if findings:
        more = f"\nand {len(findings) - 10:,} more" if len(findings) > 10 else ""
        kinds = dict.fromkeys(one.kind for one in findings if one.kind != "key")
        do = "take them out of the run's files and publish again"
        do += f"; or, if they belong to no person: {' '.join(f'--allow {kind}' for kind in kinds)}" if kinds else ""
        raise DataError("\n".join(map(str, findings[:10])) + more, str(run_path / "publish"), do)
    for shipment in shipments:
        files = [file for file in shipment.folder.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files) / 1e6
        typer.echo(f"{shipment.kind:8} {shipment.repository}  {len(files)} files, {size:,.1f} MB  in {shipment.folder}")
    if not (license_ and terms_checked):
        say("before this is published:")
        for question in questions(facts_of(run_path, wanted)):
            say(f"  - {question}")
    if dry_run:
        return
    if not (license_ and terms_checked):
        do = "answer them, then add --license NAME and --terms-checked"
        raise DataError("neither the licence is stated, nor whether the terms allow publication", "viva publish", do)
    for address in upload(shipments, public=public):
        typer.echo(address)


__all__ = ["publish"]
