import config from "../deno.json" with { type: "json" };

/** Version of this package. */
export const version: string = config.version;

/** Prints the version. */
export function versionCommand(): number {
  console.log(`syndbg ${version}`);
  return 0;
}
