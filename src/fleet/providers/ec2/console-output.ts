/** What an instance wrote to its console. */
import { codeOf } from './aws-errors.ts'
import type { Ec2Api } from './ec2-api.ts'

const tailBytes = 4096

/** @returns the end of it, at most 4 kB; undefined when there is none, or EC2 has forgotten the instance */
export async function readConsole(api: Ec2Api, instanceId: string): Promise<string | undefined> {
  try {
    // Only some types can show what was written just now; of the others EC2 keeps what they wrote while they booted.
    return (await read(api, instanceId, true)) ?? (await read(api, instanceId, false))
  } catch (error) {
    if (codeOf(error).startsWith('InvalidInstanceID.')) return undefined
    throw error
  }
}

async function read(api: Ec2Api, instanceId: string, latest: boolean): Promise<string | undefined> {
  const input = { InstanceId: instanceId, ...(latest && { Latest: true }) }
  try {
    const { Output } = await api.retried((client, options) => client.getConsoleOutput(input, options))
    const bytes = Buffer.from(Output ?? '', 'base64')
    return bytes.length === 0 ? undefined : bytes.subarray(-tailBytes).toString('utf8')
  } catch (error) {
    if (latest && codeOf(error) === 'UnsupportedOperation') return undefined
    throw error
  }
}
