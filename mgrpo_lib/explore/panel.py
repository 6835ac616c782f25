"""The widgets of an explorer: menus for run, benchmark and transition, and one record at a time."""

import ipywidgets as widgets


class Panel:
    """Show an `Explorer` as widgets; what is chosen in one menu decides what the next one offers."""

    def __init__(self, explorer):
        self.explorer, self.busy = explorer, False
        runs = [(explorer.name(run), run) for run in explorer.runs]
        self.run = widgets.Dropdown(description="run", options=runs, value=explorer.run)
        names = explorer.benchmarks(explorer.run)
        self.benchmark = widgets.Dropdown(description="benchmark", options=names, value=explorer.benchmark)
        self.transition = widgets.Dropdown(description="transition")
        self.number = widgets.BoundedIntText(value=1, min=1, max=1, description="record")
        self.total, self.page = widgets.Label(), widgets.HTML()
        small = widgets.Layout(width="auto")
        self.back, self.next = (widgets.Button(description=name, layout=small) for name in ("previous", "next"))
        menus = [self.run, self.benchmark, self.transition]
        row = widgets.Layout(flex_flow="row wrap")
        self.box = widgets.VBox(
            [widgets.Box([*menus, self.number, self.total, self.back, self.next], layout=row), self.page]
        )
        self.refresh(transition=explorer.first_transition())
        for menu in menus:
            menu.observe(lambda _: self.refresh(), "value")
        self.number.observe(lambda _: self.show(), "value")
        for button, by in ((self.back, -1), (self.next, 1)):  # the number keeps its bounds
            button.on_click(lambda _, by=by: self.number.set_trait("value", self.number.value + by))

    def refresh(self, transition: str | None = None) -> None:
        """Offer what the chosen run has, keep the other choices where they exist, and show the first record."""
        if self.busy:  # a change that this function makes itself
            return
        self.busy = True
        benchmark, transition = self.benchmark.value, transition or self.transition.value
        self.benchmark.options = names = self.explorer.benchmarks(self.run.value)
        self.benchmark.value = benchmark if benchmark in names else names[0]
        counts = self.explorer.counts(self.run.value, self.benchmark.value)
        self.transition.options = [(f"{name} ({count})", name) for name, count in counts.items()]
        self.transition.value = transition
        self.number.value = 1
        self.number.max = max(1, counts[transition])
        self.busy = False
        self.show()

    def show(self) -> None:
        if self.busy:
            return
        records = self.explorer.select(self.run.value, self.benchmark.value, self.transition.value)
        self.total.value = f"of {len(records)}"
        record = records[self.number.value - 1] if records else None
        none = "<p>No problem made this transition.</p>"
        self.page.value = none if record is None else self.explorer.page(self.run.value, record)
