/**
 * Debian's kernel for virtual machines, from its package, and the programs of the host that tests build images with.
 *
 * @module
 */

/** Where the kernel and the image are kept, outside the repository. */
export const CACHE: string = Deno.env.get("SYNDBG_NESTED_CACHE") ??
  `${Deno.env.get("TMPDIR") ?? "/tmp"}/syndbg-nested`;
const PACKAGE = /^linux-image-\S+-cloud-amd64-unsigned\b/;

/** Something that the machine is made of is not there. */
export class PartMissing extends Error {
  override name = "PartMissing";
}

/** Runs a program to its end: what it printed. */
export async function run(
  program: string,
  args: readonly string[],
  cwd = ".",
): Promise<string> {
  try {
    const { success, stdout, stderr } = await new Deno.Command(program, {
      args: [...args],
      cwd,
    }).output();
    if (success) return new TextDecoder().decode(stdout);
    throw new PartMissing(
      `${program} ${args[0]} fails: ${
        new TextDecoder().decode(stderr).trim().split("\n").at(-1)
      }`,
    );
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new PartMissing(`${program} is missing`);
  }
}

export async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch {
    return false;
  }
}

/** Where a program is. */
export async function find(program: string): Promise<string> {
  for (const folder of (Deno.env.get("PATH") ?? "").split(":")) {
    if (await exists(`${folder}/${program}`)) return `${folder}/${program}`;
  }
  throw new PartMissing(`${program} is missing`);
}

/** Debian's kernel with its modules, unpacked: the folder. */
export async function fetchKernel(): Promise<string> {
  const found = await run("apt-cache", [
    "search",
    "--names-only",
    "linux-image.*cloud-amd64-unsigned",
  ]);
  const names = found.split("\n").map((line) => PACKAGE.exec(line)?.[0])
    .filter((name) => name !== undefined)
    .sort(new Intl.Collator("en", { numeric: true }).compare);
  const name = names.at(-1);
  if (name === undefined) {
    throw new PartMissing(
      "no package linux-image-*-cloud-amd64-unsigned (apt-get update helps)",
    );
  }
  const folder = `${CACHE}/${name}`;
  if (await exists(folder)) return folder;
  await Deno.mkdir(CACHE, { recursive: true });
  const work = await Deno.makeTempDir({ dir: CACHE });
  try {
    await run("apt-get", ["download", "-q", name], work);
    const [file] = [...Deno.readDirSync(work)];
    if (file === undefined) throw new PartMissing(`${name} does not download`);
    await run("dpkg", ["-x", file.name, "unpacked"], work);
    await Deno.rename(`${work}/unpacked`, folder);
  } finally {
    await Deno.remove(work, { recursive: true });
  }
  return folder;
}

/** The one entry of a folder that matches. */
export async function entry(folder: string, pattern: RegExp): Promise<string> {
  for await (const { name } of Deno.readDir(folder)) {
    if (pattern.test(name)) return `${folder}/${name}`;
  }
  throw new PartMissing(`the kernel's package has no ${pattern.source}`);
}
