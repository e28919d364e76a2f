"""Send one message through one channel: a webhook, mail, or a service that Apprise speaks.

An error says what went wrong, and never holds an address, a user or a password.
"""

import importlib
import logging
import os
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate

import requests

from orchestrator.config.errors import innermost
from orchestrator.config.mlflow_settings import MailSettings, NotifySettings
from orchestrator.notify.note import Note

SECONDS = 15.0  # that one receiver may take to answer


class NotSent(Exception):
    """A message was not sent; one line that says why and what to do."""


def send(channel: str, note: Note, settings: NotifySettings) -> None:
    """Send a message. channel: one of `channel_names`. Raises NotSent."""
    kind, _, name = channel.partition(" ")
    if kind == "webhook":
        _post(note, _secret(name))
    elif kind == "mail" and settings.mail is not None:
        _mail(note, settings.mail)
    else:
        _apprise(note, _secret(name))


def _secret(name: str) -> str:
    """Return what an environment variable holds. Raises NotSent where it is not set."""
    value = os.environ.get(name, "").strip()
    if not value:
        raise NotSent(
            f"the environment variable {name} is not set where the driver runs: set it, then "
            "`down` and submit again"
        )
    return value


def _post(note: Note, address: str) -> None:
    """Post JSON: `text` is what Slack and Mattermost show, `content` what Discord does."""
    said = f"{note.title}\n{note.text}".strip()
    fields = {"id": note.id, "event": note.event, "study": note.study, "title": note.title}
    try:
        # not followed: another address must not learn what is meant for this one
        answer = requests.post(
            address, json={**fields, "text": said, "content": said[:1900]},
            timeout=SECONDS, allow_redirects=False,
        )  # fmt: skip
    except requests.exceptions.InvalidURL as error:
        raise NotSent("the address is none") from error
    except (requests.RequestException, ValueError) as error:
        raise NotSent(f"does not answer ({_kind(error)})") from error
    if not 200 <= answer.status_code < 300:
        raise NotSent(f"answers {answer.status_code}")


def _kind(error: BaseException) -> str:
    """Return what kind of error it is, without the address that its text may hold."""
    said = innermost(error)
    known = ("Connection refused", "Name or service not known", "timed out", "Network is unreach")
    return next((text for text in known if text in said), type(error).__name__)


def _mail(note: Note, mail: MailSettings) -> None:
    message = EmailMessage()
    message["Subject"] = " ".join(note.title.split())
    message["From"], message["To"] = mail.sender, ", ".join(mail.to)
    message["Date"], message["Message-ID"] = formatdate(), f"<{note.id}@vision-orchestrator>"
    message.set_content(f"{note.title}\n\n{note.text}".strip() + "\n")
    login = (_secret(mail.user), _secret(mail.password or "")) if mail.user else None
    kind = smtplib.SMTP_SSL if mail.security == "tls" else smtplib.SMTP
    try:
        with kind(mail.host, mail.port, timeout=SECONDS) as server:
            if mail.security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if login:
                server.login(*login)
            server.send_message(message)
    except smtplib.SMTPResponseException as error:
        raise NotSent(f"the mail server answers {error.smtp_code}") from error
    except smtplib.SMTPRecipientsRefused as error:
        raise NotSent("the mail server refuses every receiver") from error
    except smtplib.SMTPException as error:
        raise NotSent(f"the mail server fails ({type(error).__name__})") from error
    except OSError as error:
        raise NotSent(f"the mail server does not answer ({_kind(error)})") from error


def _apprise(note: Note, address: str) -> None:
    try:
        apprise = importlib.import_module("apprise")
    except ImportError as error:
        raise NotSent("Apprise is not installed: pip install apprise") from error
    logging.getLogger("apprise").disabled = True  # its lines hold addresses
    service = apprise.Apprise()
    if not service.add(address):
        raise NotSent("the address is none that Apprise knows")
    if not service.notify(title=note.title, body=note.text or note.title):
        raise NotSent("Apprise could not send it")
