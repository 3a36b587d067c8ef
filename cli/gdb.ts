import type { Vcpu } from "../core/backend.ts";
import { GdbStub } from "../core/gdb/stub.ts";
import type { Machine } from "../core/machine.ts";
import { formatRegisters } from "./registers.ts";
import { type Options, parseChoice, UsageError } from "./usage.ts";

/** Milliseconds that the word of the guest's end may take to a client. */
const LINGER = 200;
const COMMANDS = `help            print this
info registers  print the vCPU's registers, hidden parts too
system_reset    reset the guest, which ends the run
`;

/** What the `--gdb` options open. */
export interface GdbServer {
  /** Tells a client the exit code, then closes all sockets. */
  close(code: number): Promise<void>;
}

function monitor(machine: Machine, command: string, vcpu: Vcpu): string {
  switch (command.replace(/\s+/g, " ")) {
    case "help":
      return COMMANDS;
    case "info registers":
      return `${formatRegisters(vcpu)}\n`;
    case "system_reset":
      machine.stop({ kind: "reset" });
      return "";
    default:
      return `Cannot run ${command}: unknown command (see help)\n`;
  }
}

/** Whether an image is for 64-bit mode: an ELF64 file, or Linux's bzImage with a 64-bit entry. */
function isWide(image: Uint8Array): boolean {
  const text = (from: number, to: number): string =>
    String.fromCharCode(...image.subarray(from, to));
  if (text(0, 4) === "\x7fELF") return image[4] === 2;
  // XLF_KERNEL_64 (Linux Documentation/arch/x86/boot.rst).
  return text(0x202, 0x206) === "HdrS" && (image[0x236]! & 1) !== 0;
}

/**
 * Opens the stub that `--gdb`, `--gdb-wait` and `--gdb-arch` ask for.
 *
 * @throws {UsageError} If one is not understood or the port cannot be had.
 */
export function openGdb(
  options: Options,
  machine: Machine,
  image: Uint8Array,
): GdbServer | undefined {
  const where = options.value("gdb");
  const wait = options.flag("gdb-wait");
  const arch = options.value("gdb-arch");
  if (where === undefined) {
    if (!wait && arch === undefined) return undefined;
    throw new UsageError("Cannot wait for GDB: --gdb [HOST]:PORT is missing");
  }
  const amd64 = arch === undefined
    ? isWide(image)
    : parseChoice("gdb-arch", arch, ["i386", "amd64"]) === "amd64";
  const listener = listen(where);
  const stub = new GdbStub({
    machine,
    wait,
    amd64,
    monitor: (command, vcpu) => monitor(machine, command, vcpu),
  });
  const { hostname, port } = listener.addr;
  const state = wait ? ", the guest waits for it" : "";
  console.error(`syndbg: GDB can attach at ${hostname}:${port}${state}`);
  const connections = new Set<Deno.TcpConn>();
  const serve = async (connection: Deno.TcpConn): Promise<void> => {
    connections.add(connection);
    if (!stub.busy) {
      const { hostname, port } = connection.remoteAddr;
      console.error(`syndbg: GDB connected from ${hostname}:${port}`);
      connection.setNoDelay(true);
      await stub.serve(connection);
    }
    hangUp(connection);
    connections.delete(connection);
  };
  let open = true;
  const accept = async (): Promise<void> => {
    while (open) {
      // One that has gone already is an error of this call.
      const connection = await listener.accept().catch(() => undefined);
      if (connection !== undefined) serve(connection);
    }
  };
  accept();
  return {
    async close(code) {
      open = false;
      listener.close();
      let timer: ReturnType<typeof setTimeout> | undefined;
      await Promise.race([
        stub.ended(code),
        new Promise<void>((resolve) => timer = setTimeout(resolve, LINGER)),
      ]);
      clearTimeout(timer);
      connections.forEach(hangUp);
    },
  };
}

function hangUp(connection: Deno.TcpConn): void {
  try {
    connection.close();
  } catch {
    // The stream's end has closed it.
  }
}

function listen(where: string): Deno.TcpListener {
  const match = /^(?:\[([0-9a-f:.%\w]+)\]|([^:[\]]*)):(\d{1,5})$/i.exec(where);
  if (match === null || Number(match[3]) > 65_535) {
    throw new UsageError(
      `Cannot use --gdb ${where}: must be [HOST]:PORT, port 0 to 65535`,
    );
  }
  const hostname = match[1] || match[2] || "127.0.0.1";
  try {
    return Deno.listen({ hostname, port: Number(match[3]) });
  } catch (error) {
    throw new UsageError(
      `Cannot use --gdb ${where}: ${(error as Error).message}`,
    );
  }
}
