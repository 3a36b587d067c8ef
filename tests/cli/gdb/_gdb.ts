import { startCli } from "../_cli.ts";

/** Why tests with Debian's GDB cannot be had here; where all parts are required, nothing. */
export function missing(): string | undefined {
  if (Deno.env.has("SYNDBG_REQUIRE_ALL")) return undefined;
  for (const program of ["gdb", "nasm", "ld"]) {
    try {
      new Deno.Command(program, {
        args: ["-v"],
        stdout: "null",
        stderr: "null",
      })
        .outputSync();
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      return `${program} is missing`;
    }
  }
  return undefined;
}

/** Runs a program to its end; what it prints on both ways. */
export async function run(
  program: string,
  args: readonly string[],
): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(program, {
    args: [...args],
    stdin: "null",
    env: { LC_ALL: "C", HOME: "/nonexistent" },
  }).output();
  const decoder = new TextDecoder();
  const text = decoder.decode(stdout) + decoder.decode(stderr);
  if (!success) throw new Error(`${program}: ${text}`);
  return text;
}

/** Builds the guest with symbols and line numbers, for the time of `work`. */
export async function withGuest(
  bits: 32 | 64,
  work: (path: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    const source = new URL("guest.asm", import.meta.url).pathname;
    const object = `${folder}/guest.o`;
    const image = `${folder}/guest.elf`;
    const format = ["-f", `elf${bits}`, "-g", "-F", "dwarf", `-DBITS=${bits}`];
    await run("nasm", [...format, "-o", object, source]);
    const machine = bits === 64 ? "elf_x86_64" : "elf_i386";
    await run("ld", ["-m", machine, "-Ttext=0x100000", "-o", image, object]);
    await work(image);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** A guest on the command line with a stub. */
export interface Served {
  /** Where it listens. */
  address: string;
  /** How the process ended, and what else it said on stderr. */
  finish(): Promise<{ code: number; stderr: string }>;
}

/** Starts `run IMAGE --gdb :0` and reads which port it took. */
export async function serve(...args: readonly string[]): Promise<Served> {
  const process = startCli([
    "run",
    "--backend",
    "interp",
    "--gdb",
    ":0",
    "--timeout",
    "60s",
    ...args,
  ]);
  const decoder = new TextDecoder();
  let stderr = "";
  const reader = process.stderr.getReader();
  const read = async (): Promise<boolean> => {
    const { value, done } = await reader.read();
    stderr += decoder.decode(value ?? new Uint8Array());
    return !done;
  };
  while (!stderr.includes("\n") && await read());
  const address = /GDB can attach at (\S+:\d+)/.exec(stderr)?.[1];
  if (address === undefined) throw new Error(stderr);
  return {
    address,
    async finish() {
      while (await read());
      await process.stdout.cancel();
      return { code: (await process.status).code, stderr };
    },
  };
}

/** Runs GDB's commands on an image and the stub at `address`; returns what it prints. */
export async function gdb(
  image: string | undefined,
  address: string,
  commands: readonly string[],
): Promise<string> {
  const all = [
    "set confirm off",
    "set pagination off",
    "set width 0",
    `target remote ${address}`,
    ...commands,
  ];
  return await run("timeout", [
    "60",
    "gdb",
    "-nx",
    "-batch",
    ...all.flatMap((command) => ["-ex", command]),
    ...image === undefined ? [] : [image],
  ]);
}
