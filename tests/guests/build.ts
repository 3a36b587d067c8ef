/**
 * Builds the guests. `deno task build:guests` writes the images; a test compares them.
 * Needs nasm and gcc.
 *
 * @module
 */
const here = new URL(".", import.meta.url).pathname;

/** A guest and the module that its image is committed in. */
export const guests: readonly {
  source: string;
  module: string;
  name: string;
}[] = [
  {
    source: "demo.asm",
    module: new URL("../../cli/guests/demo_guest.ts", import.meta.url)
      .pathname,
    name: "demoGuest",
  },
  ...["probe_long", "probe_legacy", "storm"].map((guest) => ({
    source: `${guest}.asm`,
    module: `${here}built/${guest}_guest.ts`,
    name: `${guest.replace(/_./, (text) => text[1]!.toUpperCase())}Guest`,
  })),
];

/** Runs a tool that writes an image to a file, and reads that. */
async function build(
  tool: string,
  args: readonly string[],
): Promise<Uint8Array> {
  const out = await Deno.makeTempFile({ suffix: ".bin" });
  try {
    const { success, stderr } = await new Deno.Command(tool, {
      args: [...args, "-o", out],
      cwd: here,
      env: { LC_ALL: "C" },
    }).output();
    if (!success) {
      throw new Error(
        `Cannot build with ${tool}: ${new TextDecoder().decode(stderr)}`,
      );
    }
    return await Deno.readFile(out);
  } finally {
    await Deno.remove(out);
  }
}

/** Assembles a source file to a flat binary. */
export function assemble(source: string): Promise<Uint8Array> {
  return build("nasm", ["-f", "bin", "-I", "lib/", source]);
}

/** The target, whose image depends on the compiler. */
export const target = {
  source: "target/kernel.c",
  module: new URL("../../cli/guests/target_guest.ts", import.meta.url)
    .pathname,
  name: "targetGuest",
};

/** Versions of gcc and of GNU ld that made the committed image of the target: Debian 12's. */
export const TOOLS = { gcc: "12.2.0", ld: "2.40" };

/** Folder of the stub, from here. */
const STUB = "../../hyperv/kd/stub";

/** Compiles the target: an ELF64 file with its symbols. No path gets into it. */
export function compileTarget(): Promise<Uint8Array> {
  const sources = [...Deno.readDirSync(new URL(`${STUB}/`, import.meta.url))]
    .map(({ name }) => name).filter((name) => name.endsWith(".c")).sort();
  return build("gcc", [
    ..."-std=c11 -O2 -march=x86-64 -mcmodel=kernel -mno-red-zone".split(" "),
    // The interpreter's guests have general registers only.
    ..."-mgeneral-regs-only -ffreestanding -nostdlib -static".split(" "),
    ..."-fno-pic -no-pie -fno-stack-protector -fcf-protection=none".split(" "),
    ..."-fno-omit-frame-pointer -fno-asynchronous-unwind-tables".split(" "),
    ..."-fno-ident -Wall -Wextra -T target/target.ld".split(" "),
    "-Wl,--build-id=none,-z,max-page-size=4096,--no-warn-rwx-segments",
    ...["-I", STUB, "target/boot.S", target.source],
    ...sources.map((name) => `${STUB}/${name}`),
  ]);
}

/** The module for an image: base64 text that is decoded at first use. */
export function moduleText(
  name: string,
  source: string,
  image: Uint8Array,
): string {
  const text = image.toBase64();
  const lines = text.match(/.{1,72}/g) ?? [];
  return `// Built from tests/guests/${source} by \`deno task build:guests\`: do not edit.

const IMAGE = \`
${lines.join("\n")}
\`;

/** The image of the guest: a multiboot kernel. */
export function ${name}(): Uint8Array<ArrayBuffer> {
  return Uint8Array.fromBase64(IMAGE.replaceAll("\\n", ""));
}
`;
}

if (import.meta.main) {
  for (const { source, module, name } of guests) {
    const image = await assemble(source);
    await Deno.writeTextFile(module, moduleText(name, source, image));
    console.log(`${source}: ${image.length} bytes`);
  }
  const image = await compileTarget();
  await Deno.writeTextFile(
    target.module,
    moduleText(target.name, target.source, image),
  );
  console.log(`${target.source}: ${image.length} bytes`);
}
