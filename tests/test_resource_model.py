"""Random programs at a Resource against a model in plain Python, which is written from the rules.

A driver makes customers, each with a request of its own, and meddles: it withdraws, releases,
cancels and lets go, several times in one moment and in between. The model knows who is ready to run
and why, in which order; what happens in which order must be the same, to the step.
"""

import random
from collections import deque

from sleeploop import (
    CancelledError,
    CancelScope,
    Event,
    Interrupt,
    RequestCancelled,
    Resource,
    create_task,
    sleep,
)
from tests.helpers import virtual
from tests.twins import come_by, each_seed

# ---- the model -----------------------------------------------------------------------------------


class Customer:
    def __init__(self, name, priority, preempt):
        self.name, self.priority, self.preempt = name, priority, preempt
        self.state = "new"  # waiting, inside, or "ready" for a reason; at last "gone"
        self.reason = "start"
        self.number = None
        self.turn = 0
        self.withdrawn = self.cancelled = self.let_go = self.lost = False
        self.interrupts = []


class Model:
    def __init__(self, capacity):
        self.slots = [None] * capacity
        self.waiting = []
        self.ready = deque()
        self.log = []
        self.turns = 0

    def wake(self, customer, reason):
        customer.state, customer.reason = "ready", reason
        self.ready.append(customer)

    def queue(self):
        return sorted(self.waiting, key=lambda customer: customer.priority)  # stable

    def give(self, customer, number):
        self.turns += 1
        self.slots[number] = customer
        customer.number, customer.turn = number, self.turns

    def give_back(self, customer):
        number, customer.number = customer.number, None
        self.slots[number] = None
        if self.waiting:
            first = self.queue()[0]
            self.waiting.remove(first)
            self.give(first, number)
            self.wake(first, "given")

    # What the driver does.

    def make(self, customer):
        self.wake(customer, "start")

    def withdraw(self, customer):
        if customer.number is not None:
            self.release(customer)
            return True
        if customer.state == "ready" and customer.reason == "start" and not customer.withdrawn:
            customer.withdrawn = True
            return True
        if customer.state == "waiting":
            self.waiting.remove(customer)
            customer.withdrawn = True
            self.wake(customer, "given")
            return True
        return False

    def release(self, customer):
        if customer.number is not None:
            if customer.state == "ready" and customer.reason == "given":
                customer.withdrawn = True
            self.give_back(customer)

    def cancel(self, customer):
        customer.cancelled = True
        if customer.state == "waiting":
            self.waiting.remove(customer)
            self.wake(customer, "cancelled")
        elif customer.state == "inside":
            self.wake(customer, "cancelled")

    def let(self, customer):
        customer.let_go = True
        if customer.state == "inside":
            self.wake(customer, "let go")

    # What the customers do.

    def settle(self):
        while self.ready:
            customer = self.ready.popleft()
            getattr(self, "when_" + customer.reason.replace(" ", "_"))(customer)

    def may_not_go_on(self, customer):
        if customer.cancelled:
            self.wake(customer, "cancelled")
        elif customer.interrupts:
            self.wake(customer, "interrupted")
        return customer.cancelled or bool(customer.interrupts)

    def end(self, customer, *what):
        self.log.append((customer.name, *what))
        if customer.number is not None:
            self.give_back(customer)
        customer.state = "gone"

    def when_start(self, customer):
        if self.may_not_go_on(customer):
            return
        if customer.withdrawn:
            self.end(customer, "withdrawn")
        elif None in self.slots:
            self.give(customer, self.slots.index(None))
            self.enter(customer)
        else:
            victims = [user for user in self.slots if user.priority > customer.priority]
            first = self.waiting and self.queue()[0].priority <= customer.priority
            if customer.preempt and victims and not first:
                self.preempt(customer, max(victims, key=lambda user: (user.priority, user.turn)))
                self.enter(customer)
            else:
                customer.state = "waiting"
                self.waiting.append(customer)

    def preempt(self, customer, victim):
        number, victim.number, victim.lost = victim.number, None, True
        victim.interrupts.append((customer.name, number))
        if victim.state == "inside":
            self.wake(victim, "interrupted")
        self.give(customer, number)

    def enter(self, customer):
        self.log.append((customer.name, "got", customer.number, customer.lost))
        if not self.may_not_go_on(customer):
            if customer.let_go:
                self.end(customer, "let go")
            else:
                customer.state = "inside"

    def when_given(self, customer):
        if customer.withdrawn:
            self.end(customer, "withdrawn")
        else:
            self.enter(customer)

    def when_let_go(self, customer):
        self.end(customer, "let go")

    def when_cancelled(self, customer):
        self.end(customer, "cancelled")

    def when_interrupted(self, customer):
        self.end(customer, "interrupted", *customer.interrupts[0])


# ---- the real thing ------------------------------------------------------------------------------


class Real:
    def __init__(self, capacity):
        self.resource = Resource(capacity)
        self.requests, self.scopes, self.events = {}, {}, {}
        self.names = {}
        self.log = []

    async def visit(self, name):
        request = self.requests[name]
        with self.scopes[name]:
            try:
                async with request:
                    self.log.append((name, "got", request.number, request.preempted))
                    try:
                        await self.events[name].wait()
                        self.log.append((name, "let go"))
                    except Interrupt as interrupt:
                        by = self.names[interrupt.cause.by]
                        self.log.append((name, "interrupted", by, interrupt.cause.number))
            except RequestCancelled:
                self.log.append((name, "withdrawn"))
            except CancelledError:
                self.log.append((name, "cancelled"))
                raise

    def make(self, customer):
        name = customer.name
        self.requests[name] = self.resource.request(customer.priority, customer.preempt)
        self.scopes[name], self.events[name] = CancelScope(), Event()
        self.names[create_task(self.visit(name))] = name

    def withdraw(self, customer):
        return self.requests[customer.name].cancel()

    def release(self, customer):
        if self.requests[customer.name].number is not None:
            self.requests[customer.name].release()

    def cancel(self, customer):
        self.scopes[customer.name].cancel()

    def let(self, customer):
        self.events[customer.name].set()

    def seen(self):
        by_request = {request: name for name, request in self.requests.items()}
        return (
            [(user.number, by_request[user]) for user in self.resource.users],
            [by_request[request] for request in self.resource.queue],
        )


def seen_by(model):
    return (
        [(n, user.name) for n, user in enumerate(model.slots) if user is not None],
        [customer.name for customer in model.queue()],
    )


async def drive(seed):
    """What became of the customers."""
    rng = random.Random(seed)
    capacity = rng.choice([1, 1, 2, 3, 5])
    model, real = Model(capacity), Real(capacity)
    preempting, patience = rng.choice([0, 0.3, 0.8]), rng.choice([0.1, 0.5])
    customers = []
    for _ in range(rng.randrange(5, 60)):
        what = rng.choice(["make", "make", "make", "let", "cancel", "withdraw", "release"])
        if what == "make" or not customers:
            what = "make"
            customer = Customer(
                len(customers), rng.choice([0, 1, 1, 2, -1.5]), rng.random() < preempting
            )
            customers.append(customer)
        else:
            customer = rng.choice(customers[-12:])
        assert getattr(real, what)(customer) == getattr(model, what)(customer)
        assert real.seen() == seen_by(model)
        if rng.random() < patience:
            await sleep(1)
            model.settle()
            assert real.log == model.log
            assert real.seen() == seen_by(model)
    for customer in customers:
        real.cancel(customer)
        model.cancel(customer)
    await sleep(1)
    model.settle()
    assert real.log == model.log
    assert real.seen() == seen_by(model) == ([], [])
    return [
        entry[1] if entry[1] != "got" or not entry[3] else "got and lost" for entry in model.log
    ]


def check(seed):
    return virtual(drive(seed))


def test_random_programs():
    kinds = {"got", "got and lost", "let go", "cancelled", "interrupted", "withdrawn"}
    each_seed(check, times=2)
    come_by(check, kinds)  # or they prove nothing
