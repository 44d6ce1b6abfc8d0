"""A certificate authority of the tests, for relays behind TLS."""

import datetime as dt
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def ip_name(address):
    """Return the name of a host that is known by its address."""
    return x509.IPAddress(ipaddress.ip_address(address))


class Authority:
    """A certificate authority of its own."""

    def __init__(self, name):
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        basic = x509.BasicConstraints(ca=True, path_length=0)
        self._certificate = self._sign(self._name, self._key.public_key(), [(basic, True)])

    def save(self, path):
        path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def issue(self, folder, name, *, days=1):
        """Write certificate and key for ``name``; return the arguments of a relay with them."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a relay")])
        names = x509.SubjectAlternativeName([name])
        certificate = self._sign(subject, key.public_key(), [(names, False)], days=days)
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        (folder / "relay.pem").write_bytes(pem)
        (folder / "relay.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        config = folder / "relay.toml"
        config.write_text('[tls]\ncertificate = "relay.pem"\nkey = "relay.key"\n')
        return "--config", str(config)

    def _sign(self, subject, public_key, extensions, *, days=1):
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=2))
            .not_valid_after(now + dt.timedelta(days=days))
        )
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        for extension, critical in [*extensions, (issuer_id, False)]:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self._key, hashes.SHA256())
