/**
 * What workers and nodes before left on this machine when they were killed: processes, and folders for temporary files.
 */
import { lstatSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { agentOf, endOrphans, isOwnerGone } from '../../marked-processes.ts'
import { attemptFolders } from '../protocol/attempt-folder.ts'
import { bundleFolders } from '../slots/load-bundle.ts'

/**
 * Ends and removes what belongs to no living process, and to this user. Never throws: what cannot be removed stays.
 * @param folder where temporary files are
 */
export function removeLeftovers(folder: string = tmpdir()): void {
  endOrphans()
  for (const name of list(folder)) {
    const owner = ownerOf(name)
    if (owner !== undefined && isOwnerGone(owner)) remove(join(folder, name))
  }
}

/** Of a folder with such a name: the process that made it, or whose slot did. */
function ownerOf(name: string): string | undefined {
  if (name.startsWith(attemptFolders)) return agentOf(name.slice(attemptFolders.length))
  // mkdtemp has added six characters.
  if (name.startsWith(bundleFolders)) return name.slice(bundleFolders.length, -7)
  return undefined
}

function remove(path: string): void {
  try {
    const found = lstatSync(path)
    if (found.isDirectory() && found.uid === process.getuid?.()) rmSync(path, { recursive: true, force: true })
  } catch {
    // Another one may be removing it at this moment.
  }
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}
