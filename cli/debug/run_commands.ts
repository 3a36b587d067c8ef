import { KdError } from "../../hyperv/kd/link.ts";
import type { WaitOptions } from "../../hyperv/kd/waiters.ts";
import { hex, json } from "./format.ts";
import { CommandError, type CommandResult, type DebugShell } from "./shell.ts";

const MAX_STEPS = 0x10_0000n;

function breakpointValue(
  entry: { id: number; address: bigint; enabled: boolean; hits: number },
): Record<string, unknown> {
  return { ...entry, address: json(entry.address) };
}

/** `g [ADDRESS]`, `gh`, `gn`: goes until the target stops. */
export async function go(
  shell: DebugShell,
  name: string,
  text: string,
  wait: WaitOptions,
): Promise<CommandResult> {
  const stop = await shell.debugger.go({
    ...wait,
    unhandled: name === "gn",
    ...(text !== "" && { until: await shell.evaluate(text) }),
  });
  return await shell.report(stop);
}

/** `t [COUNT]` and `p [COUNT]`: executes instructions, `p` with what they call. */
export async function step(
  shell: DebugShell,
  name: string,
  text: string,
  wait: WaitOptions,
): Promise<CommandResult> {
  const count = text === "" ? 1n : await shell.evaluate(text);
  if (count < 1n || count > MAX_STEPS) {
    throw new CommandError(`Cannot do ${name} ${text}: must be 1 to 100000`);
  }
  let result: CommandResult | undefined;
  const steps: unknown[] = [];
  const texts: string[] = [];
  for (let n = 0n; n < count; n++) {
    const stop = name === "p"
      ? await shell.debugger.stepOver(wait)
      : await shell.debugger.step(wait);
    result = await shell.report(stop);
    texts.push(result.text);
    steps.push(result.value);
    const { state } = result.value as { state: string };
    // Something else than the step stopped it.
    if (name === "t" && state !== "step") break;
    if (state === "exception" || state === "breakpoint") break;
  }
  return {
    text: texts.join("\n"),
    value: count === 1n ? result!.value : steps,
  };
}

/** `.break`: stops the target, if it runs. */
export async function breakIn(
  shell: DebugShell,
  _name: string,
  _text: string,
  wait: WaitOptions,
): Promise<CommandResult> {
  return await shell.breakIn(wait);
}

/** `.runfor MILLISECONDS`: goes, and breaks in after that time if the target has not stopped. */
export async function runFor(
  shell: DebugShell,
  _name: string,
  text: string,
  wait: WaitOptions,
): Promise<CommandResult> {
  if (!/^\d+$/.test(text)) {
    throw new CommandError("Cannot do .runfor: give milliseconds, decimal");
  }
  // Again, in case the target was stopped for another reason just then.
  const timer = setInterval(() => {
    shell.session.breakIn(wait).catch(() => {});
  }, Math.max(1, Number(text)));
  try {
    return await go(shell, "g", "", wait);
  } finally {
    clearInterval(timer);
  }
}

/** `bp ADDRESS`. */
export async function setBreakpoint(
  shell: DebugShell,
  _name: string,
  text: string,
): Promise<CommandResult> {
  const address = text === ""
    ? shell.session.stop?.programCounter
    : await shell.evaluate(text);
  if (address === undefined) throw new CommandError("Cannot do bp: no address");
  const entry = shell.debugger.addBreakpoint(address);
  return { text: "", value: breakpointValue(entry) };
}

/** `bl`. */
export async function listBreakpoints(
  shell: DebugShell,
): Promise<CommandResult> {
  const digits = await shell.digits();
  const { breakpoints } = shell.debugger;
  return {
    text: breakpoints.map(({ id, address, enabled, hits }) =>
      `${String(id).padStart(2)} ${enabled ? "e" : "d"} ${
        hex(address, digits)
      } ${hits} hits ${shell.symbolAt(address) ?? ""}`.trimEnd()
    ).join("\n"),
    value: breakpoints.map(breakpointValue),
  };
}

/** `bc`, `bd` and `be` with numbers or `*`. */
export async function changeBreakpoints(
  shell: DebugShell,
  name: string,
  text: string,
): Promise<CommandResult> {
  await Promise.resolve();
  const { breakpoints } = shell.debugger;
  const chosen = text === "*" ? breakpoints : text.split(/[\s,]+/).map(
    (word) => {
      const found = breakpoints.find(({ id }) => String(id) === word);
      if (found === undefined) {
        throw new CommandError(`Cannot do ${name} ${word}: no such breakpoint`);
      }
      return found;
    },
  );
  for (const entry of chosen) {
    if (name === "bc") shell.debugger.removeBreakpoint(entry.id);
    else entry.enabled = name === "be";
  }
  return { text: "", value: chosen.map(breakpointValue) };
}

/** `~NUMBERs`: changes to another processor. */
export async function switchProcessor(
  shell: DebugShell,
  _name: string,
  text: string,
  wait: WaitOptions,
): Promise<CommandResult> {
  const number = Number(/^(\d+)\s*s$/.exec(text)?.[1] ?? NaN);
  if (!(number < (shell.session.stop?.processors ?? 0))) {
    throw new CommandError(`Cannot do ~${text}: there is no such processor`);
  }
  return await shell.report(
    await shell.session.switchProcessor(number, wait),
  );
}

/** `.reboot`: the target does not answer; it comes again. */
export async function reboot(shell: DebugShell): Promise<CommandResult> {
  await command(shell, "Reboot");
  return { text: "", value: {} };
}

/** `.crash` and `.bugcheck`: the target stops with a bug check. */
export async function bugCheck(
  shell: DebugShell,
  _name: string,
  _text: string,
  wait: WaitOptions,
): Promise<CommandResult> {
  await command(shell, "CauseBugCheck");
  await shell.session.waitForStop(wait);
  return await shell.breakIn(wait);
}

/** A target that does as it is told may be gone before it says so. */
async function command(
  shell: DebugShell,
  name: "Reboot" | "CauseBugCheck",
): Promise<void> {
  try {
    await shell.session.command(name, {});
  } catch (error) {
    const gone = error instanceof KdError && shell.session.stop === undefined;
    if (!gone) throw error;
  }
}

/** `q`: the console lets the target go on, and ends. */
export function quit(): Promise<CommandResult> {
  return Promise.resolve({ text: "", value: {}, quit: true });
}
