"""Every limit in one place: a value, its unit, and the reason.

Raise one by editing the plan where the plan has a key for it; the rest are guards.
"""

HEADER_BYTES_MAX = 100 * 2**20
"""Bytes of a tensor file's JSON header; the limit of the safetensors format itself."""

TENSORS_MAX = 1_000_000
"""Tensors in one file; the largest published models have tens of thousands."""

HEADER_VALUES_MAX = 8 * 2**20
"""Commas and opening brackets in a header: up to 75 bytes of memory each once parsed, 600 MiB."""

TENSOR_BYTES_MAX = 2**62
"""Bytes of all tensors of a file; a guard against overflow of 64-bit sizes, not against size."""

NAME_CHARS_MAX = 1_024
"""Characters of a tensor name; longer names are an attack on memory or terminals."""

RANK_MAX = 64
"""Dimensions of one tensor; NumPy's own limit."""

ACCUMULATOR_BITS = 62
"""Bits of one fixed-point sum; one more is the sign, and one is free so that a check can see
overflow."""

WIDE_BITS = 62
"""Bits of the integer part of a wide sum, and again of its fraction.  A value of a wide vector is
at most 2^62 / weight_limit, so that no sum overflows: 4e12 for a million examples."""

BLOCK_VALUES = 2**16
"""Values worked on at a time, 512 KiB as float64: half of a usual second-level cache."""

STACK_BYTES = 2**20
"""Bytes of the piece of all updates that a rule which is not a sum reads at a time: as above."""

READ_AHEAD_BYTES = 2**16
"""Bytes of one update in a file that are read at a time where a rule asks for less: a thousand
updates hold 64 MiB, and each file is opened a thousand times for a vector of 64 MiB."""

WEIGHT_RANGE_BITS = 40
"""A weight is at least weight_limit / 2^40: a round of such weights is still right to
bound / 2^22."""

SPEC_EXPONENT_MAX = 300
"""Bounds and weight limits lie in [2^-300, 2^300], so that no scale leaves float64's range."""

DATA_BYTES_MAX = 16 * 2**30
"""Bytes of one dataset in memory; what is larger belongs behind the learner's own loader."""

INFLATED_BYTES_MAX = 4 * 2**30
"""Bytes that one compressed data file may unfold to; a few KiB can declare anything."""

NPZ_MEMBERS_MAX = 64
"""Arrays in one .npz file; Hansa reads four of them."""

NPY_HEADER_BYTES_MAX = 64 * 2**10
"""Bytes of one array's header in a .npz file; a real one has 128."""

CSV_COLUMNS_MAX = 100_000
"""Columns of a table; genome-wide tables have tens of thousands."""

LABEL_CHARS_MAX = 256
"""Characters of a class label or a natural key; it becomes a column head and a file name."""

CLASSES_MAX = 100_000
"""Classes of one dataset; the largest public label sets have tens of thousands."""

CLIENTS_MAX = 10_000_000
"""Clients of one partition; their offsets alone take 80 MB."""

PARTITION_CELLS_MAX = 200_000_000
"""Clients times classes of one partition's table; 1.6 GB of 64-bit counts."""

UPDATE_BOUND_MIN = 64.0
"""Largest absolute value of an update that is always accepted; 6 bits of the fixed-point sum."""

POINT_BITS_MIN = 36
"""Bits that the default bound leaves below the binary point of a sum, 1.5e-11: bits that neither
they nor the weights need let updates be larger, as linear models on unscaled targets are."""

UPDATE_BOUND_FACTOR = 16.0
"""Times the model's largest parameter: an update may move that far in one round."""

WEIGHT_LIMIT = 2.0**26
"""Sum of weights of one round when only the clients know their examples: 67 million examples or
local steps, 26 bits of the fixed-point sum."""

USER_WEIGHT_LIMIT = 2.0**20
"""The same when the user's code says what an update weighs; weights down to 1e-6 are taken."""

PLAN_DEPTH_MAX = 16
"""Levels of tables and lists in a plan; its own keys need four."""

FAILURE_CHARS_MAX = 64 * 2**10
"""Characters of a traceback that are kept; the end of it says what happened."""

MESSAGE_CHARS_MAX = 2_000
"""Characters of an error message that are kept; the traceback has a file of its own."""

WORKER_FRAME_BYTES_MAX = 64 * 2**20
"""Bytes of one message between a simulation and its worker process; models travel as files."""

WORKER_DEATHS_MAX = 2
"""Times that a client may take its worker process down before it counts as failed."""

PARTITION_ROWS_SHOWN = 200
"""Clients whose label counts are kept for the report; a chart cannot show more."""

UNTRAINED_BATCH = 256
"""Examples that a torch model is given at a time when no local step bounds them: evaluation and
full gradients.  256 images of 224 x 224 pixels are 150 MB, and their activations a few GB."""

DEVICE_DATA_BYTES_MAX = 2 * 2**30
"""Bytes of one array of a client that are kept on the GPU; larger ones go there batch by batch."""

SCRIPTS_MAX = 32
"""Training scripts of clients that wait between their rounds; each holds a model and its data."""

SCRIPT_END_S = 60.0
"""Seconds that a script gets for its last lines, such as saving a file, once the run is over."""

CODE_FILES_MAX = 2_000
"""Python files of one project, all kept with each run; large studies have a few hundred."""

CODE_BYTES_MAX = 32 * 2**20
"""Bytes of those files; ten times what two thousand files of usual length have."""
