import type { Backend } from "../core/backend.ts";
import { loadImage, type LoadOptions } from "../core/loaders/load_image.ts";
import {
  createGuestMachine,
  type GuestMachine,
  type GuestMachineOptions,
} from "../hyperv/guest_machine.ts";
import type { MachineOutcome } from "../core/machine.ts";
import { formatTrace, traceJson, type TraceSink } from "../hyperv/trace.ts";
import { BACKEND_OPTIONS, openBackend } from "./backends.ts";
import { ConsoleOutput } from "./console_output.ts";
import { openDebug } from "./debug_options.ts";
import { openGdb } from "./gdb.ts";
import { demoGuest } from "./guests/demo_guest.ts";
import { targetGuest } from "./guests/target_guest.ts";
import { helpText } from "./help.ts";
import { type GuestImage, loadOrRefuse, readImage } from "./image_file.ts";
import { forwardInput, linuxImage, openConsole } from "./linux.ts";
import { reportOutcome, withInterrupt } from "./outcome.ts";
import { imageSymbols, isKd, runWithConsole } from "./run_console.ts";
import {
  type Options,
  parseAddress,
  parseChoice,
  parseCount,
  parseDuration,
  parseOptions,
  parseSize,
  UsageError,
} from "./usage.ts";

/** The guests that are built in. */
const GUESTS = { demo: demoGuest, target: targetGuest };

/** Runs a guest image; returns the exit code. */
export async function runCommand(args: readonly string[]): Promise<number> {
  const options = parseOptions("run", args, {
    boolean: ["no-syndbg", "enforce-cpuid", "gdb-wait"],
    string: [
      ...BACKEND_OPTIONS,
      "guest",
      "memory",
      "cpus",
      "mode",
      "profile",
      "timeout",
      "address",
      "entry",
      "entry-mode",
      "append",
      "command",
      "gdb",
      "gdb-arch",
      "linux",
      "initrd",
    ],
    collect: ["debug", "module", "disk"],
    optional: { trace: "text" },
    alias: { c: "command" },
  });
  if (options.flag("help")) {
    console.log(helpText("run"));
    return 0;
  }
  const [path, ...more] = options.positional;
  if (more.length > 0) {
    throw new UsageError(`Cannot run ${path}: unexpected argument ${more[0]}`);
  }
  const timeout = options.value("timeout");
  const limit = timeout === undefined
    ? Infinity
    : parseDuration("timeout", timeout);
  const commands = options.value("command");
  const lines = options.values("debug").some(isKd);
  if (commands !== undefined && !lines) {
    throw new UsageError("Cannot use --command: there is no --debug kd");
  }
  const output = new ConsoleOutput(Deno.stdout, { lines });
  const linux = options.value("linux") !== undefined;
  const lone = ["initrd", "disk"].find((name) => options.values(name).length);
  if (!linux && lone !== undefined) {
    throw new UsageError(`Cannot use --${lone} without --linux`);
  }
  const image = linux ? linuxImage(options) : plainImage(options, path);
  const { backend, note } = openBackend(
    options,
    options.flag("enforce-cpuid"),
  );
  const settings = machineSettings(options, output, backend);
  const wire = await openDebug(options.values("debug"));
  try {
    const guest = build({
      ...settings,
      ...(!options.flag("no-syndbg") && {
        syndbg: {
          transport: wire.transport,
          mode: parseChoice("mode", options.value("mode") ?? "msr", [
            "msr",
            "hypercall",
          ]),
        },
      }),
    });
    let closeConsole: (() => void) | undefined;
    try {
      image.load(guest);
      if (note !== undefined) console.error(`syndbg: ${note}`);
      const gdb = openGdb(options, guest.machine, image.data);
      const run = (signal: AbortSignal): Promise<MachineOutcome> =>
        runThroughResets(guest, image, wire.debugger, limit, signal);
      if (wire.console) {
        const code = await runWithConsole(guest.machine, run, {
          ...wire.console,
          json: false,
          symbols: imageSymbols(image.name, image.data),
          breakIn: false,
          ...(commands !== undefined && { commands }),
        });
        output.flush();
        await gdb?.close(code);
        return code;
      }
      if (linux) closeConsole = openConsole(guest.machine);
      else forwardInput(guest.machine);
      const outcome = await withInterrupt(run);
      output.flush();
      const code = reportOutcome(guest.machine, outcome);
      await gdb?.close(code);
      return code;
    } finally {
      closeConsole?.();
      guest.machine.close();
    }
  } finally {
    await wire.close();
  }
}

/** Runs a guest; a reset starts one that has a debugger again, as `.reboot` wants. */
async function runThroughResets(
  guest: GuestMachine,
  image: GuestImage,
  restarts: boolean,
  limit: number,
  signal: AbortSignal,
): Promise<MachineOutcome> {
  const end = performance.now() + limit;
  for (;;) {
    const timeout = Math.max(0, end - performance.now());
    const outcome = await guest.machine.run({ timeout, signal });
    if (outcome.kind !== "reset" || !restarts) return outcome;
    guest.machine.reset();
    image.load(guest);
  }
}

function machineSettings(
  options: Options,
  output: ConsoleOutput,
  backend: Backend,
): GuestMachineOptions {
  const trace = traceSink(options.value("trace"));
  return {
    backend,
    memorySize: parseSize(
      "memory",
      options.value("memory") ?? defaultMemory(options),
    ),
    cpus: parseCount("cpus", options.value("cpus") ?? "1"),
    profile: parseChoice("profile", options.value("profile") ?? "hyperv", [
      "hyperv",
      "kvm",
    ]),
    enforceCpuid: options.flag("enforce-cpuid"),
    onOutput: (byte) => output.write(byte),
    onCrash: ({ parameters, message }) => {
      const words = parameters.map((word) => `0x${word.toString(16)}`);
      console.error(`syndbg: guest crash: ${words.join(" ")}`);
      if (message !== undefined) console.error(message);
    },
    ...(trace && { trace }),
  };
}

/** A Linux kernel unpacks itself into more than a small guest needs. */
function defaultMemory(options: Options): string {
  return options.value("linux") === undefined ? "64M" : "256M";
}

/** Makes the machine; sizes that cannot be had are the user's error. */
function build(options: GuestMachineOptions): GuestMachine {
  try {
    return createGuestMachine(options);
  } catch (error) {
    if (error instanceof RangeError) throw new UsageError(error.message);
    throw error;
  }
}

/** Reads the image and checks the loader's options. */
function plainImage(options: Options, path: string | undefined): GuestImage {
  const builtIn = options.value("guest");
  if (path !== undefined && builtIn !== undefined) {
    throw new UsageError(`Cannot run ${path}: --guest ${builtIn} is given too`);
  }
  const data = path === undefined
    ? GUESTS[parseChoice("guest", builtIn ?? "demo", ["demo", "target"])]()
    : readImage(path);
  const settings: LoadOptions = {
    commandLine: options.value("append") ?? "",
    modules: options.values("module").map((path) => ({
      data: readImage(path),
      text: path,
    })),
  };
  const address = options.value("address");
  if (address !== undefined) {
    settings.address = parseAddress("address", address);
  }
  const entry = options.value("entry");
  if (entry !== undefined) settings.entry = parseAddress("entry", entry);
  const mode = options.value("entry-mode");
  if (mode !== undefined) {
    settings.mode = parseChoice("entry-mode", mode, [
      "real",
      "protected",
      "long",
    ]);
  }
  return {
    name: path?.replace(/^.*\//, "") ?? builtIn ?? "demo",
    data,
    load: ({ machine, memory }) =>
      loadOrRefuse(() => loadImage(memory, machine.vcpus[0]!, data, settings)),
  };
}

function traceSink(format: string | undefined): TraceSink | undefined {
  if (format === undefined) return undefined;
  const print = parseChoice("trace", format, ["text", "json"]) === "json"
    ? traceJson
    : formatTrace;
  return (event) => console.error(print(event));
}
