/** A file, or a folder where there is no data, of an archive. */
export interface CpioEntry {
  /** Path without a leading slash. */
  path: string;
  /** Contents; absent: a folder. */
  data?: Uint8Array;
  /** Permissions. Default 0o755. */
  mode?: number;
}

const FOLDER = 0o040000;
const FILE = 0o100000;

function padded(...parts: readonly Uint8Array[]): Uint8Array[] {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  return [...parts, new Uint8Array((4 - length % 4) % 4)];
}

function member(n: number, mode: number, path: string, data: Uint8Array) {
  const name = new TextEncoder().encode(path + "\0");
  const fields = [
    ...[n, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, name.length, 0],
  ].map((field) => field.toString(16).padStart(8, "0"));
  const header = new TextEncoder().encode("070701" + fields.join(""));
  return [...padded(header, name), ...padded(data)];
}

/** An archive in cpio's newc format, as the kernel takes a RAM disk (Linux Documentation/driver-api/early-userspace/buffer-format.rst). */
export async function cpio(entries: readonly CpioEntry[]): Promise<Uint8Array> {
  const none = new Uint8Array();
  const parts = entries.flatMap(({ path, data, mode = 0o755 }, n) =>
    member(n + 1, mode | (data ? FILE : FOLDER), path, data ?? none)
  );
  parts.push(...member(0, 0, "TRAILER!!!", none));
  return new Uint8Array(
    await new Blob(parts as Uint8Array<ArrayBuffer>[]).arrayBuffer(),
  );
}
