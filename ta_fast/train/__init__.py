"""Train an encoder on labelled sets or on a log: MiniLM's cost, better choices.

`prepare` needs the whole of ta_fast; everything else needs torch, NumPy and safetensors only,
so that a bare GPU machine can train what was prepared elsewhere.
"""
