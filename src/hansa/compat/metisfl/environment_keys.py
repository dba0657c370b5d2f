"""What becomes of keys of a federation environment that no plan takes over: a sentence each."""

from __future__ import annotations

import re

_SSH = "Nobody logs in to other machines; start learner.py there, with the invitation that is shown"

SENTENCES: dict[str, str] = {
    "DockerImage": "Nothing is started in a container; run the same commands in one if you like.",
    "CommunicationProtocol.EnableSSL": "TLS is always on, and there is no way to switch it off.",
    "ConnectionConfig.Hostname": f"{_SSH}.",
    "ConnectionConfig.Port": f"{_SSH}.",
    "ConnectionConfig.Username": f"{_SSH}; the name was not copied.",
    "ConnectionConfig.Password": f"{_SSH}; the password was not copied.",
    "ConnectionConfig.KeyFilename": f"{_SSH}; no SSH key was read.",
    "ConnectionConfig.Passphrase": f"{_SSH}; the passphrase was not copied.",
    "ConnectionConfig.OnLoginCommand": f"{_SSH}, after what this command did.",
    "ProjectHome": "Nothing is copied to a project home; learner.py runs where it lies.",
    "SSLConfig": "Hansa makes its own authority, keys and certificates, and shares none of them.",
    "HomomorphicEncryption": "Updates are not encrypted; they travel over TLS.",
    "EncryptionScheme": "Updates are not encrypted; they travel over TLS.",
    "ModelStoreConfig.LineageLength": "With NoEviction all models stay.",
    "ModelStoreConfig.EvictionPolicy.LineageLength": "With NoEviction all models stay.",
    "ModelStoreConfig.ConnectionConfigs": "Name the Redis by its ModelStoreHostname and Port.",
}
"""By the last parts of a key; a table stands for all that is in it."""

_NOBODY = "Hansa knows no such key; it changes nothing."


def sentence_of(key: str) -> str:
    """Return why a key was not taken over, and what to do instead.

    >>> sentence_of("Learners[0].SSLConfig.PrivateKey")[:21]
    'Hansa makes its own a'
    """
    parts = re.sub(r"\[\d+\]", "", key).split(".")
    for start in range(len(parts)):
        for stop in range(len(parts), start, -1):
            if (found := SENTENCES.get(".".join(parts[start:stop]))) is not None:
                return found
    return _NOBODY
