/**
 * A template that is put into a bucket, in the words that moto's CloudFormation knows.
 * Why: it takes the short form of Condition for something absent, and a date that stands without quotes for no text; it does
 * not know Cidr; and it gives no name to a parameter that has none, whose tags it wants as a list.
 */
import type { IncomingCall } from '../incoming-call.ts'

/** @returns the call as it came, when it puts no template */
export function forMoto(call: IncomingCall): IncomingCall {
  const { request } = call
  const isTemplate = call.service === 's3' && request.method === 'PUT' && /^[^?]*\.yaml(\?|$)/.test(request.path)
  if (!isTemplate) return call
  const text = templateForMoto(request.body.toString())
  // Sums that were made of the other bytes.
  const headers = Object.fromEntries(
    Object.entries(request.headers).filter(
      ([name]) => !/^(content-md5|x-amz-checksum-.*|x-amz-sdk-checksum-.*)$/.test(name),
    ),
  )
  return { ...call, request: { ...request, headers, body: Buffer.from(text) } }
}

export function templateForMoto(text: string): string {
  return (
    text
      .replace(/!Condition (Cond\w+)/g, '{Condition: $1}')
      .replace(
        /^( +)Type: AWS::SSM::Parameter\n +Properties:\n/gm,
        (found, indent: string) => `${found}${indent}  Name: !Sub "\${AWS::StackName}-settings"\n`,
      )
      .replace(/^( +Tags:\n +)(muster:\w+): (!Ref \S+)$/gm, '$1- {Key: "$2", Value: $3}')
      .replace(/^( +Version: )(2012-10-17)$/gm, "$1'$2'")
      // Right for a network of 16 bits, as in all tests.
      .replace(
        /!Select \[(\d), !Cidr \[!Select \[(\d), !Cidr \[!Ref (\w+), \d, 12\]\], \d, 11\]\]/g,
        (_, half: string, index: string, name: string) => partOf(name, `${Number(index) * 16 + Number(half) * 8}.0/21`),
      )
      .replace(/!Select \[(\d), !Cidr \[!Ref (\w+), \d, 12\]\]/g, (_, index: string, name: string) =>
        partOf(name, `${Number(index) * 16}.0/20`),
      )
  )
}

/** A network inside of that of the parameter `name`. */
function partOf(name: string, rest: string): string {
  const part = (at: number): string => `!Select [${at}, !Split ['.', !Ref ${name}]]`
  return `!Sub ['\${a}.\${b}.${rest}', {a: ${part(0)}, b: ${part(1)}}]`
}
