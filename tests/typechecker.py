"""What checks the annotations of the methods rooms: beartype, with int where float is said."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
