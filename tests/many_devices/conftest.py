# Scripts for processes of their own, which the collection of doctests would import.
collect_ignore_glob = ["run_*.py"]
