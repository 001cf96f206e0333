import base64
import json
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from nacl.signing import VerifyKey

from queue_middleware.errors import SettingsError
from queue_middleware.signing import KeyPair, Signer, load_signer

SEED = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"  # RFC 8032 §7.1, test 1


def test_signs_like_rfc_8032():
    key = KeyPair.from_hex(SEED)
    assert key.public.hex() == PUBLIC
    assert key.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )


def test_key_id_is_the_thumbprint_of_rfc_8037():
    assert KeyPair.from_hex(SEED).kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"  # appendix A.3


def test_key_set_has_each_key_without_and_with_padding():
    first, second = KeyPair.from_hex(SEED), KeyPair.generate()
    entries = Signer([first, second]).jwks()["keys"]
    assert [entry["kid"] for entry in entries] == [first.kid, first.kid, second.kid, second.kid]
    assert [len(entry["x"]) for entry in entries] == [43, 44, 43, 44]
    assert entries[0] == {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "use": "sig",
        "alg": "EdDSA",
        "kid": first.kid,
    }
    assert base64.urlsafe_b64decode(entries[1]["x"]).hex() == PUBLIC


def test_the_first_key_signs():
    first, second = KeyPair.generate(), KeyPair.generate()
    VerifyKey(first.public).verify(b"message", Signer([first, second]).sign(b"message"))


def test_the_option_goes_before_the_file(tmp_path):
    signer = load_signer(SEED.upper(), tmp_path / "queue.key")
    assert signer.active.public.hex() == PUBLIC
    assert not (tmp_path / "queue.key").exists()


def test_several_seeds():
    other = KeyPair.generate()
    for separator in (",", "\n", ", "):
        signer = load_signer(SEED + separator + other.seed_hex(), None)
        assert [key.kid for key in signer.keys] == [KeyPair.from_hex(SEED).kid, other.kid]


@pytest.mark.parametrize("text", ["", " ", "abc", SEED[:-1], SEED + "0", "g" + SEED[1:], SEED + " nonsense"])
def test_a_malformed_key_is_refused_and_not_repeated(text, tmp_path):
    with pytest.raises(SettingsError, match="signing_key: ") as caught:
        load_signer(text, tmp_path / "queue.key")
    assert SEED[:10] not in caught.value.detail
    assert "nonsense" not in caught.value.detail


def test_a_key_is_made_once_and_kept_private(tmp_path):
    path = tmp_path / "queue.sqlite3.key"
    made = load_signer(None, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_signer(None, path).active.kid == made.active.kid
    assert [file.name for file in tmp_path.iterdir()] == ["queue.sqlite3.key"]


def test_processes_that_start_together_agree_on_one_key(tmp_path):
    # Threads do: the agreement is made by the file system, each has a draft of its own.
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: load_signer(None, tmp_path / "key").active.kid, range(64)))
    assert len(keys) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o777])
def test_a_key_that_others_may_read_is_refused(tmp_path, mode):
    path = tmp_path / "key"
    load_signer(None, path)
    path.chmod(mode)
    with pytest.raises(SettingsError, match=f"chmod 600 {path}"):
        load_signer(None, path)


def test_a_file_that_is_no_key_is_refused_with_its_name(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"\xff not a key")
    path.chmod(0o600)
    with pytest.raises(SettingsError, match=str(path)):
        load_signer(None, path)


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(SettingsError, match="No such file or directory"):
        load_signer(None, tmp_path / "nowhere" / "key")


def test_the_published_set_holds_nothing_private():
    key = KeyPair.generate()
    published = json.dumps(Signer([key]).jwks())
    assert key.seed_hex() not in published
    assert '"d"' not in published
    assert key.seed_hex() not in repr(key)
