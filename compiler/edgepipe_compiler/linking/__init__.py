"""From lowered units to stage libraries, and the files that the harness reads."""
