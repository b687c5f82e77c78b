"""Numbers: readers, spectra, rules, judgement, Prometheus export. No network, no database, no clock."""
