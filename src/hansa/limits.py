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

WHOLE_NUMBERS = 2.0**53
"""Magnitude of a buffer's value from which on it is not averaged but held constant: float64, in
which buffers travel, no longer has every whole number."""

WIDE_BITS = 62
"""Bits of the integer part of a wide sum, and again of its fraction.  A value of a wide vector is
at most 2^62 / weight_limit, so that no sum overflows: 4e12 for a million examples."""

BLOCK_VALUES = 2**17
"""Values worked on at a time, 1 MiB as float64: with half as many, the calls take longer than what
the second-level cache saves."""

SUM_BYTES_KEPT = 32 * 2**20
"""Bytes of a sum up to which its mean keeps all of its memory: so large a block the C library gives
out again, where the rest of a greater one, or of one that was cut, is fetched page by page anew."""

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

CHAIN_MODULES_MAX = 32
"""Modules of one optimizer's chain, or of its regularizers; each may keep two copies of the model,
and six modules are many."""

FAILURE_CHARS_MAX = 64 * 2**10
"""Characters of a traceback that are kept; the end of it says what happened."""

MESSAGE_CHARS_MAX = 2_000
"""Characters of an error message that are kept; the traceback has a file of its own."""

WORKER_FRAME_BYTES_MAX = 64 * 2**20
"""Bytes of one message between a simulation and its worker process; models travel as files."""

WORKER_REPLY_BYTES_MAX = 2**20
"""Bytes of what a worker tells its site beside an update: METRICS_MAX metrics, or a traceback.
Decoded it takes some thirty times as much of the agent's memory, which no limit of a run counts."""

FAILURES_KEPT = 200
"""Tracebacks that a site keeps, of FAILURE_CHARS_MAX characters at most; the oldest go."""

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

PROJECT_FILE_BYTES_MAX = 2**20
"""Bytes of another system's project description that is read; real ones have a few KiB."""

CHUNK_BYTES = 8 * 2**20
"""Bytes of one piece of a large blob: what is sent again after a cut, 0.7 s at 100 Mbit/s."""

BLOB_BYTES_MAX = 64 * 2**30
"""Bytes of one blob: a model of 16 billion parameters in 32 bits; 8,192 chunks."""

PIECE_BYTES = 2**19
"""Bytes that pass through memory at once when a blob is read, hashed or written: less than a core's
own cache holds, so that what was read is still there when it is hashed."""

SPARE_BYTES_MIN = 2**18
"""Bytes from which on a file is kept to be written over; smaller ones are as quickly made anew."""

SPARES_BYTES_MAX = 2**30
"""Bytes of such files that a server, or a site, keeps between two rounds."""

WORKER_MEMORY_KEPT = 256 * 2**20
"""Bytes of freed memory that a worker keeps for its next arrays: as large as a model, each would
else be given back and be fetched anew from the system, page by page, several times a round."""

CONNECTION_BUFFER_BYTES = 2**19
"""Bytes of a request that a server takes off the network at once; each lot wakes its event loop,
and takes four times as much of its memory on its way."""

RECEIVING_LARGE_BYTES = 2**17
"""Bytes from which on such a lot shows that its sender is faster than the server."""

RECEIVING_AT_ONCE = 4
"""Bodies whose next large lot a server takes at the same time while its disk keeps up: one is read
while others are written, and memory does not depend on how many sites send."""

RECEIVING_TURN_S = 0.5
"""Seconds at most that one of them goes on while others wait."""

RECEIVING_WAIT_S = 2.0
"""Seconds in which all that wait would have a turn, which shortens it.  As they go one after the
other, the last of 40 waits for 4 and of 400 for 9: less than a sender takes for silence."""

RECEIVING_STALLED_S = 0.01
"""Seconds after which a sender that was fast, and has paused, no longer counts among them."""

DISK_HERE_S = 0.01
"""Seconds of one piece after which the server's event loop has the rest of a blob read, or written,
by others: the system's cache does not have it, and whoever polls must not wait for the disk."""

DISK_SLOW_S = 1.0
"""Seconds for which all that comes in is written by others from its first piece, once the disk was
slow: the event loop waits for it once in that time, however many send."""

SENDING_BYTES = 2 * 2**20
"""Bytes of blobs that a server reads at once for all who fetch; some five times as many are on
their way through it."""

SENDING_PIECE_BYTES_MIN = 2**16
"""Bytes at least of the pieces in which each of them gets its blob, however many there are."""

CONNECT_S = 10.0
"""Seconds in which a client has its way to a server, the handshake included."""

SENT_PIECE_BYTES = 2**17
"""Bytes of a body that a client has to get rid of within the time that it takes for silence, which
is 30 seconds: at least 4 KB/s."""

RESULT_HEADER_CHARS_MAX = 4_096
"""Characters of a result that comes along with its update; proxies take 8 KiB for a header."""

UPLOAD_PIECE_BYTES = 2**18
"""Bytes of an upload that a server gathers, while its disk is slow, before it has them written;
with the lot that fills them it holds them twice, for each of the connections that send at the same
time, four a site."""

HASH_THREADED_BYTES = 16 * 2**20
"""From here on a blob is hashed by several threads; a smaller one is done before they are awake."""

PARTIAL_UPLOADS_MAX = 16
"""Uploads in pieces that a store keeps for one member; beyond it the oldest are dropped."""

UPLOADS_PER_TASK_MAX = 2
"""Different updates that a site may upload for one task: its own, and one computed once more."""

PARTIAL_AGE_S = 7 * 86_400.0
"""Seconds after which an upload that nobody went on with is dropped."""

PARTIAL_IDLE_S = 3_600.0
"""Seconds after which an upload that nobody goes on with makes room for another of the same member,
where that has none left: a cut is most often noticed, and gone on from, within minutes."""

UNSUBMITTED_BYTES_MAX = 2 * BLOB_BYTES_MAX
"""Bytes that one submitter may have uploaded and not submitted: the largest model, and another that
came to nothing; and never more than half of what the disk has left, which others need too."""

UNSUBMITTED_MAX = 256
"""Blobs that one submitter may have uploaded and not submitted; a run needs two, and each takes an
entry of a folder however small it is."""

UNSUBMITTED_SWEEP_S = 3_600.0
"""Seconds between two looks for what was uploaded and not submitted for a day."""

CHUNK_LISTS_MAX = 256
"""Lists of chunk digests that a store remembers; 8 KiB for each GB of a blob."""

GROUP_COMMIT_MAX = 256
"""Writes that share one commit of the database; bounds how long the first of them waits."""

ANSWER_BYTES_MAX = 16 * 2**20
"""Bytes of one JSON answer of a server; the longest are pages of events."""

CONNECTIONS_MAX = 8
"""Connections that one client keeps open to its server: four for chunks, and a few for polls."""

TRANSFERS_MAX = 4
"""Chunks of one blob that travel at once; more gain nothing once the line is full."""

PACKAGE_NAME_BYTES_MAX = 1_024
"""Bytes of a path in a package; the shortest limit of any usual system for a whole path."""

PACKAGE_PART_BYTES_MAX = 200
"""Bytes of one step of it; file systems take 255, and a temporary name must fit too."""

PACKAGE_DEPTH_MAX = 32
"""Folders that lie in each other in a package; real projects have ten at most."""

REQUESTS_MAX = 1_000
"""Plans that a site keeps for its owner; each may bring CODE_BYTES_MAX of code."""

LEDGER_CONTROL_S = 60.0
"""Seconds of small messages that become one line of a site's ledger; polls come every few."""

LEDGER_LINE_BYTES_MAX = 64 * 2**20
"""Bytes of one line of a ledger; a model of a million tensors has a line of that size."""

DIFF_LINES_MAX = 200_000
"""Lines of code that a review compares; finding a smallest difference takes their square."""

CERTIFICATE_CHARS_MAX = 4_000
"""Characters of a certificate as text; Hansa's own have about 900."""

CERTIFICATE_HOURS = 24.0
"""How long a member's certificate holds; it is renewed when half of that is over."""

RENEWAL_DAYS = 90.0
"""Days after its end in which a certificate is still good for being renewed, and nothing else: a
site that was switched off for a season comes back by itself."""

TLS_DAYS = 90.0
"""Days that the server's TLS certificate holds; the server makes itself another one in time."""

AUTHORITY_DAYS = 7_300.0
"""Days that a federation's authority holds, 20 years: all members would have to join again."""

CLOCK_SKEW_S = 300.0
"""Seconds that a certificate begins before its making, so that a clock may be set back a little."""

INVITE_CHARS_MAX = 500
"""Characters of an invitation; the longest host name has 253."""

INVITE_S = 900.0
"""Seconds that an invitation holds unless its maker says otherwise; it is typed at once."""

INVITE_S_MAX = 30 * 86_400.0
"""Seconds that an invitation can hold at most; longer ones are forgotten, and found by others."""

INVITE_GUESSES = 10
"""Wrong tokens from one address after which it is not listened to; people mistype one or two."""

INVITE_LOCK_S = 60.0
"""Seconds without enrolments from such an address; 128 bits need no longer ones."""

SESSION_S = 3_600.0
"""Seconds of a session; a request costs a new one only so often, and a forgotten one ends."""

SESSIONS_OF_MEMBER_MAX = 16
"""Open sessions of one member: an agent and a few commands side by side need one each."""

SESSIONS_MAX = 65_536
"""Open sessions of a server; about 1.5 KiB each once its window is full, 100 MiB in all."""

REPLAY_WINDOW = 4_096
"""Counters of a session behind its highest that may still come; far more than are under way."""

OPEN_BODY_BYTES_MAX = 16 * 2**10
"""Bytes of a request's body from somebody who has proven nothing; an enrolment has 400."""

OPEN_RATE = 10.0
"""Requests a second that one address may make without having proven anything; all sites behind
one firewall share an address."""

OPEN_BURST = 100
"""Such requests at once after a pause: invitations redeemed, or guessed at, from one address."""

SOURCES_MAX = 10_000
"""Addresses whose rate and wrong guesses are remembered, about 200 bytes each."""

MEMBER_CACHE_S = 1.0
"""Seconds that a server takes a member for one without asking its database again: how long a
revocation by another process can take to be felt."""

MEMBER_CACHE_MAX = 10_000
"""Members that are remembered so."""

OVER_MAX = 10
"""Times the clients wanted that a round may ask: the work of nine in ten would be thrown away."""

LATE_ROUNDS_MAX = 10
"""Rounds that an update may be late; what a round declared is kept so long."""

FOLLOW_WAIT_S = 25.0
"""Seconds that whoever follows a run waits for news in one request; proxies give up after 60."""

FOLLOW_MODEL_BYTES = 2**18
"""Bytes of a model that is fetched anew with the rounds; larger ones come when the run is over, so
that whoever looks on does not slow the rounds down."""

FOLLOW_GATHER_S = 0.2
"""Seconds for which news of a run are gathered into one answer; people see no difference, and a
round of milliseconds is not held up by those who look on."""

AWAY_PAUSE_S = 10.0
"""Seconds at most between two tries to reach a server that is away; a restart takes two."""

AUDIT_REFUSED_BURST = 50
"""Lines of the audit trail about refused results of one member, at once: a site that has fallen
behind a few runs makes no more."""

AUDIT_REFUSED_RATE = 1 / 60
"""Such lines a second after these, so that no member fills the disk: 1,440 a day, about 300 KiB."""

AUDIT_PAGE = 1_000
"""Lines of the audit trail in one answer, about 200 KiB."""

WORKER_LOG_BYTES_MAX = 10 * 2**20
"""Bytes of what a site's workers print before the log begins anew; one older log is kept."""

WORKER_TEMPORARY_BYTES_MAX = 512 * 2**20
"""Bytes of temporary files in a site's sandbox, which lie in memory."""

FUNCTION_S = 60.0
"""Seconds that one call of a server function may take where a plan says nothing; a robust rule over
a hundred models of a million numbers takes two."""

FUNCTION_S_MAX = 600.0
"""Seconds that a plan may ask for; a run that is stopped waits for the call under way."""

FUNCTION_MEMORY_MB = 4_096
"""MiB of memory of server functions where an operator says nothing: a cohort's models twice."""

FUNCTION_PROCESSES_MAX = 64
"""Processes and threads of server functions in a sandbox: those of a linear algebra library."""

FUNCTION_TIMES_MAX = 8
"""Times the model that a server function may return and remember, and that a project's workflow may
hold of one client: eight moments of an optimizer."""

FUNCTION_SLACK_BYTES = 2**20
"""Bytes that they may besides."""

FUNCTION_VALUE_BYTES_MAX = 2**18
"""Characters of a round's settings, and of what functions remember besides arrays: both travel in
messages or stand in the journal with each round."""

OWN_COMMIT_BYTES_MAX = 4 * 2**20
"""Characters of the row, and of the progress, that a workflow of a project may commit at a server:
a few metrics of each of ten thousand clients."""

OWN_CALLS_MAX = 100_000
"""Calls of its federation that such a workflow may make in a round, named tasks aside: FedRec reads
back a thousand models.  One that asks for ever without going on can be ended by nothing else."""

OWN_MADE_AT_ONCE = 2
"""Processes that say at the same time what a run's own parts are, before it has a place: after a
start all runs of a server want one."""

FUNCTION_MEMORY_DEPTH_MAX = 16
"""Lists within lists in what a server function remembers."""

WORKER_PROCESSES_MAX = 1_024
"""Processes and threads of one worker in a sandbox; torch starts a few for each core."""

WORKER_FILES_MAX = 1_024
"""Files that a worker has open at a time; the usual limit of a system."""

UPDATE_TIMES_MAX = 16
"""Times the round's message that an update, or a client's state, may take: SCAFFOLD takes two."""

UPDATE_SLACK_BYTES = 2**20
"""Bytes by which it may be larger, for models of next to nothing."""

ENROL_AGAIN_S = 86_400.0
"""Seconds after an invitation's end in which the member it let in may ask for the answer again; its
key alone can, and has a certificate for as long."""

TOKEN_S_MAX = 366 * 86_400.0
"""Seconds that a bearer token can hold; scripts that run for years get a new one each year."""

ERROR_BYTES_MAX = 64 * 2**10
"""Bytes of a server's refusal that are read; three sentences take less than one KiB."""

SESSION_SPARE_S = 60.0
"""Seconds before its end at which a member opens another session, so that none ends on the way."""

SITE_END_S = 20.0
"""Seconds that a site's agent gets to end once it was told; a request to the server takes few."""

FOLDS_AT_ONCE = 2
"""Updates of one exchange that are checked and folded at the same time: each is mapped whole, and
more would only wait for the memory bus."""

SERVER_RUNS_MAX = 8
"""Runs at work at the same time, unless server.toml says otherwise; each holds a few models."""

SITES_PER_HEARTBEAT_SECOND = 400
"""Polls a second that a server lets its sites make when nothing happens; with more sites the
heartbeat grows, so that 5,000 of them are heard of every 12.5 s."""

HANDLER_THREADS = 16
"""Threads in which requests read, compute and wait for the disk."""

RESULT_THREADS = 16
"""Threads in which results are checked, folded and recorded, of which two fold at a time; no other
request waits behind large models, and one write to the disk holds what all of them bring."""

JSON_BYTES_MAX = 16 * 2**20
"""Bytes of one message: a submission with a plan and a model's tensor names is the longest."""

PLAN_BYTES_MAX = 2**20
"""Bytes of a submitted plan as JSON; it travels to every site."""

UPDATE_HEADER_BYTES_MAX = 64 * 2**10
"""Bytes that an update's file may take beside its vectors."""

FOLLOW_WAIT_S_MAX = 60.0
"""Seconds that a request for a run's events may wait for some."""

RETRY_AFTER_S: dict[int, float] = {429: 1.0, 503: 2.0}
"""Seconds after which whoever was refused shall ask again, by status."""

RETRY_S = 1.0
"""Seconds before a run is taken up again after the disk refused something."""

CONNECTIONS_BACKLOG = 4_096
"""Connections that the system keeps until they are accepted: a storm of a thousand sites."""

TLS_RENEW_DAYS = 45
"""Days before the end of the TLS certificate at which a start issues a new one: half its life."""

MESSAGES_KEPT = 2
"""Messages of one run that a site keeps, so that unchanged chunks are copied and not fetched."""

SITE_PAUSE_S = 10.0
"""Seconds at most between two tries of a site to reach its server; drawn at random, so that a
thousand of them do not come at once."""

PACKAGE_BYTES_MAX = 40 * 2**20
"""Bytes of a package's archive: the code of a project at most, and what the archive adds."""

CLOSED_EXCHANGES_KEPT = 256
"""Exchanges whose counted sites a server remembers, so that it does not tell them to stop sending
what has just been counted."""

SERVER_NAME_CHARS_MAX = 64
"""Characters of a federation's name; certificates take no longer one."""

DOCTOR_TLS_DAYS = 14.0
"""Days before its end at which an unrenewed TLS certificate is a matter for a person."""

DOCTOR_FREE_BYTES = 2 * 2**30
"""Bytes of free disk below which a server's doctor warns; a tenth of it is red."""

DOCTOR_BACKUP_DAYS = 8.0
"""Days after which the last backup is too old: a weekly one, a day late."""

DOCTOR_ORPHAN_S = 86_400.0
"""Seconds after which a file that nothing refers to counts as left over; uploads end sooner."""

DOCTOR_FAILED_DAYS = 7.0
"""Days for which a server's doctor still speaks of a run that has failed."""

DOCTOR_TWICE_MAX = 100
"""Lines of the audit trail about keys in two places that a doctor reads; a member makes at most one
an hour."""

LOCAL_ANSWER_S = 5.0
"""Seconds that an operator's command waits for the server on the same machine."""

BACKUP_HOLD_S = 10.0
"""Seconds that a backup waits for its turn among the writers of a server's database."""

SERVER_HEARTBEAT_S_MAX = 60.0
"""Seconds of a heartbeat at most: a poll is as long, and proxies give up after a minute or two."""

STARTS_AT_ONCE_MAX = 4
"""Runs that a site starts at a time to count their examples, each in a process that loads the data:
a slow one holds up no other's word, and a server that offers a hundred starts no hundred."""

OWNER_FILES_S = 1.0
"""Seconds between two looks at a site's settings and approvals, which its owner may change."""

THREAD_SWITCH_S = 0.0005
"""Seconds after which a computing thread of a server lets another have its turn; a tenth of what
Python does by itself, for a round of milliseconds waits for that several times."""

EXAMPLES_MAX = 2**31
"""Examples that one site can say it holds: the weights of a round are summed as finely as all
sites' examples together allow, so one boast would make the others' weights too small to count."""

TLS_LOOK_S = 6 * 3600.0
"""Seconds between two looks at the TLS certificate of a running server, which lasts for months."""

SITE_IDLE_S = 0.5
"""Seconds that a site waits before its next poll if the last brought nothing that it did not know:
a server that repeats itself may not keep it busy."""

REQUESTS_OF_SUBMITTER_MAX = 500
"""Plans of one submitter that a site keeps: half of all, so that others find a place."""

METRICS_MAX = 1_000
"""Metrics of one result; each goes into events, tables and a site's ledger."""

METRIC_CLASSES_MAX = 31
"""Classes of a confusion matrix that is reported: its cells are metrics of one result."""

METRIC_NAME_CHARS_MAX = 200
"""Characters of a metric's name; it becomes a column head."""

EVENT_PAGE_BYTES = ANSWER_BYTES_MAX // 2
"""Bytes of a run's events in one answer; a thousand usual ones have less than one MiB."""

OFFERS_BYTES_MAX = ANSWER_BYTES_MAX // 2
"""Bytes of the offers in one answer to a site; those that do not fit come with the next one."""

SUBMISSION_BYTES_MAX = ANSWER_BYTES_MAX // 2
"""Bytes of a submission: it becomes an offer, which must fit into an answer; a model of 50,000
tensors takes half of it."""

STANDINGS_TOLD_MAX = 100
"""Words of one site on one run that become events of the run; the last word always holds."""

STANDINGS_KEPT = 10_000
"""Words of sites on runs that a server keeps in memory, 25 MB at most; others are read anew."""

RUNS_UNFINISHED_MAX = 100
"""Unfinished runs of one submitter at a server; each has a thread, and is offered to every site."""

BACKUP_NEW_MAX = 8
"""Blobs that a backup still lacks when it holds the writers of the database to copy the rest."""

BACKUP_PASSES_MAX = 5
"""Times that a backup copies what has come meanwhile before it holds the writers all the same."""

CONNECTIONS_OPEN_MAX = 16_384
"""Connections that a server holds at a time; a waiting site has one, and takes about 42 KB."""

INSTANCE_RETURNS = 3
"""Times that a start of an agent must come back after another was heard, before there are two: what
a proxy still delivers of one that is gone is a poll, or another that was sent in its place."""

INSTANCES_KEPT = 8
"""Starts of one member's agents that a server remembers; a member can make up any number."""

INSTANCE_QUIET_S = 3_600.0
"""Seconds after which two agents of one member count as one again: hundreds of heartbeats."""

HEARTBEATS_MISSED = 1.9
"""Heartbeats for which a site is not heard of before it counts as lost: a little less than two, so
that it is noticed within two; a site polls once in each."""

SESSION_RATE = 50.0
"""Sessions a second that one address may open; all sites behind one firewall share an address."""

SESSION_BURST = 1_000
"""Sessions at once after a pause: a thousand sites whose server has just come back."""

COMMAND_RESULT_BYTES_MAX = 2**20
"""Bytes of the JSON file in which a command says its metrics; METRICS_MAX of them take less."""

COMMAND_S_MAX = 30 * 86_400.0
"""Seconds that a plan may give one command; whoever needs longer trains less in a round."""

ENVIRONMENT_BUILD_S = 1_800.0
"""Seconds that an environment may take to be built; torch is fetched in a few minutes."""

COMMAND_LINES_SHOWN = 3
"""Last lines of a command's output that a failure's reason quotes; the rest is in its trace."""

COMMAND_SHOWN_CHARS = 500
"""Characters of those lines; they may leave a site, so they are few."""

SPEEDS_KEPT_MAX = 10_000
"""Clients whose speed a semi-synchronous run remembers; each takes 60 bytes of each commit."""

STEP_SECONDS_MIN = 1e-6
"""Seconds of a local step below which no clock tells; a step of no time would be taken for ever."""

LOCAL_STEPS_MAX = 2**31 - 1
"""Local steps that one client is asked for in a round."""

CYCLE_CLIENTS_MAX = 1_000
"""Turns of one cycle; the names of those that are left are in each commit."""

AT_WORK_MAX = 1_000
"""Clients at work at once in an asynchronous run, and clients of which FedRec keeps the latest
model; each takes 60 bytes of each commit, and the latter a model's file."""

CROSS_SITE_MODELS_MAX = 100
"""Clients' own models that are evaluated at each other's data; each takes a round of its own."""

CONSOLE_LINE_CHARS_MAX = 4_096
"""Characters of one line of the console; a verb has a handful of words."""

CONSOLE_KEPT = 20
"""Rounds and problems that the console keeps of a run to show; the run folder has them all."""

PATH_FILE_BYTES_MAX = 2**20
"""Bytes that are read of a file in site-packages which names other folders; it has a few lines."""

RUN_NUMBER_MAX = 999_999_999
"""The highest run number of a console; it is part of a folder's name."""

CONSOLE_VIEW_BYTES = 4 * 2**20
"""Bytes of a file that the console looks at; a longer one is for a pager."""

CONSOLE_VIEW_LINES = 2_000
"""Lines of a file that the console shows; more scroll away unread."""

CONSOLE_EVENT_PAGES = 1_000
"""Pages of a run's events that the console reads for one answer: a million events."""

SERVER_END_S = 20.0
"""Seconds that a server gets to answer what is open when the console tells it to end."""

CONSOLE_HISTORY_LINES = 1_000
"""Lines of the console that are remembered for the next time."""

ENVIRONMENT_BYTES_MAX = 2**20
"""Bytes of a federation environment of MetisFL; one of a hundred learners has 60 kB."""

MEMBERS_NAMED_MAX = 1_000
"""Learners of a federation environment, and keys of one of its tables; each is named in a file."""

RUNS_PER_PAGE = 100
"""Runs in one answer of a server, with the word of each site: 3 MB of JSON of 150 sites."""

MODELS_PER_PAGE = 1_000
"""Models of the trail in one answer of a server: 300 KiB of JSON."""

ATTRIBUTES_MAX = 32
"""Attributes of one site; they travel with each of its polls."""

ATTRIBUTE_CHARS_MAX = 200
"""Characters of an attribute's value: a word or two, such as a region or a device."""

FACTS_BYTES_MAX = 2**20
"""Bytes of JSON that go to or come from a client in one named task; tensors travel beside them."""

ANSWER_SLACK_BYTES = 64 * 2**20
"""Bytes by which a named task's question or answer may be larger than UPDATE_TIMES_MAX models: what
is asked for, such as activations, need not be made of the model."""

STATE_BYTES_MAX = ANSWER_SLACK_BYTES
"""Bytes of the files that a client's commands keep between named tasks: a part of a split model,
and what it made of the rows; they are read and written once a task."""

SPLIT_FEATURES = 1_024
"""Columns that the head of an imported package of split learning has room for, where nobody says
how many there are; unused ones stay zero."""

SPLIT_FEATURES_MAX = 2**20
"""The most that may be said: 4 MiB of weights; embeddings of a batch are far larger then."""

ASK_STEPS_MAX = 100_000
"""Exchanges of one named task within a round; each keeps a file at the site until the commit."""

PROCESS_STEPS_MAX = 1_000
"""Times that one round of broadcast_and_process may ask before it must have a report."""

PRIORITY_MAX = 9
"""Highest priority of a run; the lowest is its negative."""

PRIORITY_STEP_S = 600.0
"""Seconds of waiting that one step of priority is worth; so no run waits behind others for ever."""

DISK_TOLD_S = 60.0
"""Seconds between two lines of the server's log that say that its disk is full, or fails."""

DISK_READY_BYTES = 2**20
"""Free bytes below which a server says that it is not ready: its database can hardly grow."""

PLACE_KEPT_S = 600.0
"""Seconds for which a run between two rounds keeps its place and slots while sites are away: a
machine is restarted in that time.  Longer, and others would wait for nothing."""

RESOURCES_MAX = 16
"""Named resources of one site; each is in every poll of it."""

SLOTS_MAX = 1_024
"""Slots of one resource: the processors of a large machine, or its GiB of memory."""

COMBINER_SITES_MAX = 5_000
"""Sites behind one combiner: their names travel with each of its polls, 64 bytes each at most."""

RELAYED_STANDINGS_MAX = 10_000
"""Names whose word for one run is kept where combiners tell it: twice what one may speak for, so
that sites can move, and one that makes names up fills no disk."""

COMBINER_TIME_SHARE = 0.9
"""Of what is left of a round's time, the part that a combiner gives its own sites: the rest is for
its partial sum to arrive in, so that one slow site does not cost the others behind it the round."""

PARTIAL_TIMES = 2
"""Bytes of a partial sum for each byte of one update: 64-bit integers for 32-bit floats, and two of
them for each 64-bit value of a wide vector."""

PARTIAL_MEMBER_BYTES = 72
"""Bytes that name one client in a partial sum: 64 characters, quotes, escapes and a comma."""

EFFORT_S_MAX = 1e9
"""Seconds that a site can say it was at a task: 30 years; beyond, means and products overflow."""

SPAN_TASKS_MAX = 1_000
"""Tasks of a round whose times are kept, each in 250 bytes; more are counted."""

SPAN_TENSORS_MAX = 1_000
"""Tensors of a model whose zeros are counted and kept with each round, in 50 bytes each."""

LINEAGE_BATCH_BYTES = 64 * 2**20
"""Bytes of models that one transaction with Redis brings; they are all in memory meanwhile."""

LINEAGE_PIECE_BYTES = 64 * 2**20
"""Bytes of one value in Redis, which takes 512 MB."""

REDIS_WAIT_S = 30.0
"""Seconds that a Redis gets for an answer; one batch at 10 MB/s takes seven."""

SPANS_READ_BYTES = 8 * 2**20
"""Bytes of spans.jsonl that a report page is made from: ten thousand rounds of three clients."""
