// Runs a declarative Jenkinsfile by Groovy itself: parameters from -Dp.NAME, `sh` by a shell for real; the other steps are
// only printed. What Jenkins adds to Groovy (its sandbox, serialisation, plugins) is not here.
class Steps {
    Map env = [:]
    Map params = [:]
    boolean failed = false
    Closure body
    Closure afterwards

    def pipeline(Closure block) { within(block) }
    def agent(ignored) { }
    def getAny() { 'any' }
    def parameters(Closure block) { within(block) }
    def string(Map about) { params[about.name] = System.getProperty('p.' + about.name, about.defaultValue ?: '') }
    def choice(Map about) { params[about.name] = System.getProperty('p.' + about.name, about.choices[0]) }
    def options(Closure block) { within(block) }
    def timeout(Map ignored) { }
    def stages(Closure block) { within(block) }
    def stage(String ignored, Closure block) { within(block) }
    def steps(Closure block) { body = block }
    def post(Closure block) { afterwards = block }
    def always(Closure block) { within(block) }
    def script(Closure block) { within(block) }
    def junit(Map about) { println "step junit ${about}" }
    def archiveArtifacts(Map about) { println "step archiveArtifacts ${about}" }

    def environment(Closure block) {
        block.delegate = new Variables(this)
        block.resolveStrategy = Closure.DELEGATE_ONLY
        block()
    }

    def error(String message) {
        println "step error ${message}"
        throw new IllegalStateException(message)
    }

    def sh(Map about) {
        assert about.returnStatus
        def file = File.createTempFile('step', '.sh')
        file.text = about.script
        def builder = new ProcessBuilder('sh', '-xe', file.path).redirectErrorStream(true)
        env.each { name, value -> if (value) { builder.environment()[name] = value.toString() } }
        def process = builder.start()
        process.inputStream.eachLine { println it }
        def code = process.waitFor()
        file.delete()
        return code
    }

    def within(Closure block) {
        block.delegate = this
        block.resolveStrategy = Closure.DELEGATE_FIRST
        block()
    }
}

class Variables {
    private final Steps owner

    Variables(Steps owner) { this.owner = owner }

    def getProperty(String name) {
        assert name == 'params'
        return this.@owner.params
    }

    void setProperty(String name, value) { this.@owner.env[name] = value }
}

def steps = new Steps()
def whole = new GroovyShell(this.class.classLoader).evaluate('return { ->\n' + new File(args[0]).text + '\n}')
steps.within(whole)
try {
    steps.within(steps.body)
} catch (IllegalStateException ignored) {
    steps.failed = true
} finally {
    steps.within(steps.afterwards)
}
println "job ${steps.failed ? 'failed' : 'passed'}"
