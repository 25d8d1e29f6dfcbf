"""`foramen launch CLIENT_ID --user NAME --patient ID`: print a launch token, as an EHR would make it.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#launch-app-ehr-launch
"""

from __future__ import annotations

from typing import Annotated

import typer

from foramen.kernel.settings import get_settings


def launch(
    client_id: Annotated[str, typer.Argument(help="App to launch.")],
    user: Annotated[str, typer.Option(help="Account the launch is bound to.")],
    patient: Annotated[str, typer.Option(help="Patient in context (logical id).")],
    encounter: Annotated[str | None, typer.Option(help="Encounter in context (logical id).")] = None,
    intent: Annotated[str | None, typer.Option(help="What the app shall do (SMART `intent`).")] = None,
    style: Annotated[str | None, typer.Option(help="URL of a style document (SMART `smart_style_url`).")] = None,
    banner: Annotated[bool, typer.Option(help="Whether the app has to show who the patient is.")] = True,
) -> None:
    """Print a launch token: single use, five minutes."""
    from foramen.identity.database import transaction
    from foramen.identity.oauth.clients import find_client
    from foramen.identity.oauth.launch_parameters import checked_style_url
    from foramen.identity.oauth.launches import Launch, create_launch
    from foramen.identity.people.accounts import find_account
    from foramen.kernel.database_url import database_url
    from foramen.kernel.errors import NotFoundError

    with transaction(database_url(get_settings())) as connection:
        if find_client(connection, client_id) is None:
            raise NotFoundError("There is no such client")
        if find_account(connection, user) is None:
            raise NotFoundError("There is no such active account")
        context = Launch(
            client_id,
            user,
            patient.removeprefix("Patient/"),
            encounter.removeprefix("Encounter/") if encounter else None,
            intent,
            need_patient_banner=banner,
            smart_style_url=checked_style_url(style) if style else None,
        )
        typer.echo(create_launch(connection, context))
