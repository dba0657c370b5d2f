"""What trainer and persistor agree on."""

KEY = "numpy_key"
