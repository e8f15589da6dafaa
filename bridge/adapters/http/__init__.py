"""The bridge over HTTP: who calls, and what is answered."""
