"""Compute packages of FEDn, trained by Hansa as they stand.

`hansa import fedn` writes a project whose commands are `python -m hansa.compat.fedn.call`, which
runs the package's own command line as a FEDn client does.  In that process, and nowhere else, the
module name `fedn` means `hansa.compat.fedn.shim.fedn`.
"""
