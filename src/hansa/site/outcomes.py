"""What a task can come to instead of a result."""


class Dropped(Exception):  # noqa: N818 - not an error: nobody wants the result any more
    """The task was cancelled, or the agent ends."""


class Behind(Exception):  # noqa: N818 - not an error: the result is kept, and sent when it is asked for
    """The server wants another task first, and waits for that."""


class NotDone(Exception):  # noqa: N818 - an answer to the server, not trouble here
    """The site gives no result of this task; args are the reason, and a code if it has one."""


class Withheld(NotDone):
    """The owner has to decide, or to mend something, before the task is done; args: the reason.

    The server is told by the site's standing alone, and asks again once that is another.
    """
