"""The chains this wallet knows, one module each, behind the one port of custody."""
